// The fixture of the AnnotatedData tests: records in a temporary LMDB, and a layer that reads them.
#ifndef SSDLITE_CAFFE_TEST_ANNOTATED_DATA_TEST_HPP_
#define SSDLITE_CAFFE_TEST_ANNOTATED_DATA_TEST_HPP_

#include <google/protobuf/text_format.h>
#include <opencv2/core/core.hpp>
#include <opencv2/imgcodecs/imgcodecs.hpp>

#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/layers/annotated_data_layer.hpp"
#include "caffe/util/db.hpp"
#include "caffe/util/io.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

template <typename Dtype>
class AnnotatedDataTest : public ::testing::Test {
 protected:
  AnnotatedDataTest() {
    // Death tests start anew in a process of their own: the layer's threads would not survive a fork.
    ::testing::FLAGS_gtest_death_test_style = "threadsafe";
    MakeTempDir(&folder_);
    Environment("SSDLITE_DATA_THREADS", "2");
  }
  ~AnnotatedDataTest() {
    unsetenv("SSDLITE_DATA_THREADS");
    unsetenv("SSDLITE_STRICT_DATA");
  }

  static void Environment(const char* name, const std::string& value) { setenv(name, value.c_str(), 1); }

  static LayerParameter Param(const std::string& source, const std::string& text) {
    LayerParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString("name: 'data' type: 'AnnotatedData' " + text, &param));
    DataParameter* data_param = param.mutable_data_param();
    data_param->set_backend(DataParameter_DB_LMDB);
    data_param->set_source(source);
    if (!data_param->has_batch_size()) { data_param->set_batch_size(4); }
    return param;
  }

  // Record i: an image of one colour, i * 10 in every channel, and `objects` of it: labels i + 1, box from (i + 1) /
  // 100.
  static AnnotatedDatum Record(int i, int objects, int height = 12, int width = 16, int channels = 3) {
    AnnotatedDatum record;
    record.set_type(AnnotatedDatum_AnnotationType_BBOX);
    std::vector<uchar> code;
    cv::imencode(".png", cv::Mat(height, width, CV_8UC(channels), cv::Scalar::all(10 * i)), code);
    record.mutable_datum()->set_data(std::string(code.begin(), code.end()));
    record.mutable_datum()->set_encoded(true);
    record.mutable_datum()->set_label(100 + i);
    for (int k = 0; k < objects; ++k) {
      AnnotationGroup* group = record.add_annotation_group();
      group->set_group_label(i + 1 + k);
      Annotation* annotation = group->add_annotation();
      annotation->set_instance_id(k);
      NormalizedBBox* box = annotation->mutable_bbox();
      box->set_xmin((i + 1) / 100.f);
      box->set_ymin((i + 2) / 100.f);
      box->set_xmax(0.75f);
      box->set_ymax(0.5f + k / 100.f);
      box->set_difficult(k % 2 == 1);
    }
    return record;
  }

  std::string Write(const std::vector<std::string>& values, const std::string& name = "lmdb") const {
    const std::string path = folder_ + "/" + name;
    std::unique_ptr<db::DB> database(db::GetDB(DataParameter_DB_LMDB));
    database->Open(path, db::NEW);
    std::unique_ptr<db::Transaction> transaction(database->NewTransaction());
    for (size_t i = 0; i < values.size(); ++i) {
      char key[16];
      snprintf(key, sizeof(key), "%05zu", i);
      transaction->Put(key, values[i]);
    }
    transaction->Commit();
    return path;
  }

  // `count` sound records; record i has counts[i % size] objects.
  std::string WriteRecords(int count, const std::vector<int>& counts = {1}, const std::string& name = "lmdb") const {
    std::vector<std::string> values;
    for (int i = 0; i < count; ++i) { values.push_back(Record(i, counts[i % counts.size()]).SerializeAsString()); }
    return Write(values, name);
  }

  // A layer with its tops.
  struct Fed {
    explicit Fed(const LayerParameter& param, int tops = 2) : layer(param) {
      top = {&data, &label};
      top.resize(tops);
      layer.SetUp({}, top);
    }
    void Step() { layer.Forward({}, top); }
    // The images' colours, of one batch after the other.
    std::vector<int> Colours(int batches) {
      std::vector<int> colours;
      for (int i = 0; i < batches; ++i) {
        Step();
        for (int n = 0; n < data.num(); ++n) { colours.push_back(data.cpu_data()[data.offset(n)] / 10); }
      }
      return colours;
    }
    // Everything that some batches hold.
    std::vector<Dtype> All(int batches) {
      std::vector<Dtype> all;
      for (int i = 0; i < batches; ++i) {
        Step();
        for (const Blob<Dtype>* blob : {&data, &label}) {
          all.insert(all.end(), blob->cpu_data(), blob->cpu_data() + blob->count());
        }
      }
      return all;
    }
    Blob<Dtype> data, label;
    vector<Blob<Dtype>*> top;
    AnnotatedDataLayer<Dtype> layer;
  };

  std::string folder_;
};

}  // namespace caffe

#endif  // SSDLITE_CAFFE_TEST_ANNOTATED_DATA_TEST_HPP_
