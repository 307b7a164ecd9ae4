#ifndef CAFFE_UTIL_COPY_ROWS_HPP_
#define CAFFE_UTIL_COPY_ROWS_HPP_

#include <algorithm>
#include <cstddef>

#include "caffe/util/parallel.hpp"

namespace caffe {

/// to[i to_step + j] = from[i from_step + j] for i of rows and j of size, on the layers' own threads: moves a part
/// of an axis between a blob and a longer one.
template <typename Dtype>
void CopyRows(const int rows, const int size, const Dtype* from, const size_t from_step, Dtype* to,
              const size_t to_step) {
  const int grain = 1 << 15;  // values at a time: some microseconds of work
  if (rows == 1) {
    ParallelFor(size, grain, [=](const int begin, const int end) { std::copy(from + begin, from + end, to + begin); });
    return;
  }
  ParallelFor(rows, grain / std::max(size, 1), [=](const int begin, const int end) {
    for (int i = begin; i < end; ++i) {
      const Dtype* row = from + i * from_step;
      Dtype* out = to + i * to_step;
      if (size > 8) {
        std::copy(row, row + size, out);
      } else {  // faster than a call of memmove
        for (int j = 0; j < size; ++j) { out[j] = row[j]; }
      }
    }
  });
}

}  // namespace caffe

#endif  // CAFFE_UTIL_COPY_ROWS_HPP_
