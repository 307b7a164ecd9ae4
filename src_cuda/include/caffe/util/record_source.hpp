#ifndef CAFFE_UTIL_RECORD_SOURCE_HPP_
#define CAFFE_UTIL_RECORD_SOURCE_HPP_

#include <cstdint>
#include <memory>
#include <string>

#include "caffe/proto/caffe.pb.h"
#include "caffe/util/db.hpp"

namespace caffe {

/**
 * @brief Reads the records of a layer's data_param.source over and over, in the order of their keys.
 *
 * Where several solvers train at once, each has a source of its own for the same layer: the first takes the records 0,
 * n, 2n, ..., the second 1, n + 1, ..., counted on through all passes, so that together they see each record once. The
 * sources of a process share one open database a path: LMDB must not be opened twice in one process.
 */
class RecordSource {
 public:
  struct Record {
    std::string key, value;
    uint64_t index = 0;  // in the sequence of all passes
    uint64_t pass = 0;
  };

  // Stops with one line that names the layer and the path if there is no database with records.
  RecordSource(const LayerParameter& param, int solver_count);
  ~RecordSource();

  void Next(Record* record);

 private:
  struct Readers;  // what the sources of one layer share

  void Step();

  std::shared_ptr<Readers> readers_;
  std::shared_ptr<db::DB> db_;
  std::unique_ptr<db::Cursor> cursor_;
  uint64_t stride_, index_ = 0, pass_ = 0;
};

}  // namespace caffe

#endif  // CAFFE_UTIL_RECORD_SOURCE_HPP_
