#include "caffe/util/record_source.hpp"

#include <lmdb.h>
#include <sys/stat.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "caffe/common.hpp"

namespace caffe {

namespace {

std::mutex open_mutex;

// The object of a name: all callers share it as long as one of them holds it.
template <typename T, typename Make>
std::shared_ptr<T> Shared(std::map<std::string, std::weak_ptr<T>>* all, const std::string& name, const Make& make) {
  std::weak_ptr<T>& weak = (*all)[name];
  std::shared_ptr<T> object = weak.lock();
  if (!object) {
    object = make();
    weak = object;
  }
  return object;
}

// Stops with one line if there is no LMDB to read: LMDB's own message names neither path nor layer.
void CheckLmdb(const std::string& path, const std::string& layer) {
  const std::string where = "AnnotatedData layer '" + layer + "': data_param.source " + path;
  struct stat status;
  CHECK(!path.empty()) << where << "is not given";
  CHECK_EQ(stat(path.c_str(), &status), 0) << where << " does not exist";
  CHECK(S_ISDIR(status.st_mode)) << where << " is not a folder; an LMDB is one, with data.mdb in it";
  CHECK_EQ(stat((path + "/data.mdb").c_str(), &status), 0) << where << " holds no data.mdb";
  MDB_env* environment = nullptr;
  CHECK_EQ(mdb_env_create(&environment), MDB_SUCCESS) << where;
  const int result = mdb_env_open(environment, path.c_str(), MDB_RDONLY | MDB_NOLOCK, 0664);
  MDB_stat content = {};
  MDB_envinfo extent = {};
  if (result == MDB_SUCCESS) {
    mdb_env_stat(environment, &content);
    mdb_env_info(environment, &extent);
  }
  mdb_env_close(environment);
  CHECK_EQ(result, MDB_SUCCESS) << where << " is not a sound LMDB: " << mdb_strerror(result);
  // LMDB maps the file: a page that is missing at its end would stop the process with a bus error later on.
  CHECK_GE(status.st_size, static_cast<int64_t>((extent.me_last_pgno + 1) * content.ms_psize))
      << where << " is cut short: data.mdb has " << status.st_size << " bytes of "
      << (extent.me_last_pgno + 1) * content.ms_psize;
}

}  // namespace

struct RecordSource::Readers {
  int count = 0;
};

RecordSource::RecordSource(const LayerParameter& param, int solver_count) : stride_(solver_count) {
  static std::map<std::string, std::weak_ptr<Readers>> all_readers;
  static std::map<std::string, std::weak_ptr<db::DB>> all_databases;
  const std::string& path = param.data_param().source();
  const DataParameter::DB backend = param.data_param().backend();
  int rank;
  {
    std::lock_guard<std::mutex> lock(open_mutex);
    db_ = Shared(&all_databases, std::to_string(backend) + ":" + path, [&] {
      if (backend == DataParameter_DB_LMDB) { CheckLmdb(path, param.name()); }
      std::shared_ptr<db::DB> database(db::GetDB(backend));
      database->Open(path, db::READ);
      return database;
    });
    readers_ = Shared(&all_readers, param.name() + ":" + path, [] { return std::make_shared<Readers>(); });
    rank = readers_->count++ % solver_count;
    cursor_.reset(db_->NewCursor());
  }
  CHECK(cursor_->valid()) << "AnnotatedData layer '" << param.name() << "': data_param.source " << path
                          << " holds no records";
  for (int i = 0; i < rank; ++i) { Step(); }
}

RecordSource::~RecordSource() {
  std::lock_guard<std::mutex> lock(open_mutex);
  cursor_.reset();
  db_.reset();
  readers_.reset();
}

void RecordSource::Step() {
  ++index_;
  cursor_->Next();
  if (!cursor_->valid()) {
    ++pass_;
    cursor_->SeekToFirst();
  }
}

void RecordSource::Next(Record* record) {
  record->key = cursor_->key();
  record->value = cursor_->value();
  record->index = index_;
  record->pass = pass_;
  for (uint64_t i = 0; i < stride_; ++i) { Step(); }
}

}  // namespace caffe
