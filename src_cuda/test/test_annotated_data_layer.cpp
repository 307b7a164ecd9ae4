#include <google/protobuf/text_format.h>
#include <opencv2/core/core.hpp>
#include <opencv2/imgcodecs/imgcodecs.hpp>

#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <set>
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

  // Record i: a picture of one colour, i * 10 in every channel, and `objects` of it: labels i + 1, box from (i + 1) /
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
    // The pictures' colours, of one batch after the other.
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

TYPED_TEST_CASE(AnnotatedDataTest, TestDtypes);

// Pictures and rows as they were written, pass after pass in the order of the keys.
TYPED_TEST(AnnotatedDataTest, TestReadsInOrder) {
  typename TestFixture::Fed fed(this->Param(this->WriteRecords(6, {1, 3, 2}), ""));
  for (int batch = 0; batch < 7; ++batch) {
    fed.Step();
    ASSERT_EQ(vector<int>({4, 3, 12, 16}), fed.data.shape());
    ASSERT_EQ(8, fed.label.width());
    int row = 0;
    for (int n = 0; n < 4; ++n) {
      const int i = (4 * batch + n) % 6, objects = std::vector<int>({1, 3, 2})[i % 3];
      for (int p = 0; p < 3 * 12 * 16; ++p) { ASSERT_EQ(10 * i, fed.data.cpu_data()[fed.data.offset(n) + p]); }
      for (int k = 0; k < objects; ++k, ++row) {
        ASSERT_LT(row, fed.label.height());
        const TypeParam* label = fed.label.cpu_data() + 8 * row;
        EXPECT_EQ(n, label[0]);
        EXPECT_EQ(i + 1 + k, label[1]);
        EXPECT_EQ(k, label[2]);
        EXPECT_NEAR((i + 1) / 100., label[3], 1e-7);
        EXPECT_NEAR((i + 2) / 100., label[4], 1e-7);
        EXPECT_EQ(0.75, label[5]);
        EXPECT_NEAR(0.5 + k / 100., label[6], 1e-7);
        EXPECT_EQ(k % 2, label[7]);
      }
    }
    EXPECT_EQ(vector<int>({1, 1, row, 8}), fed.label.shape());
  }
}

TYPED_TEST(AnnotatedDataTest, TestNoObjects) {
  typename TestFixture::Fed fed(this->Param(this->WriteRecords(8, {0, 0, 0, 0, 0, 2, 0, 0}), ""));
  fed.Step();
  ASSERT_EQ(vector<int>({1, 1, 1, 8}), fed.label.shape());
  for (int i = 0; i < 8; ++i) { EXPECT_EQ(-1, fed.label.cpu_data()[i]); }
  fed.Step();
  ASSERT_EQ(vector<int>({1, 1, 2, 8}), fed.label.shape());
  EXPECT_EQ(1, fed.label.cpu_data()[0]);
  EXPECT_EQ(1, fed.label.cpu_data()[8]);
}

TYPED_TEST(AnnotatedDataTest, TestOnlyPictures) {
  typename TestFixture::Fed fed(this->Param(this->WriteRecords(5), ""), 1);
  EXPECT_EQ(std::vector<int>({0, 1, 2, 3, 4, 0, 1, 2}), fed.Colours(2));
  EXPECT_EQ(0, fed.label.count());
}

// Records without annotation type give the label of their datum; anno_type in the layer overrides that.
TYPED_TEST(AnnotatedDataTest, TestPlainLabels) {
  std::vector<std::string> values;
  for (int i = 0; i < 5; ++i) {
    AnnotatedDatum record = this->Record(i, 1);
    record.clear_type();
    values.push_back(record.SerializeAsString());
  }
  const std::string path = this->Write(values);
  {
    typename TestFixture::Fed fed(this->Param(path, ""));
    fed.Step();
    ASSERT_EQ(vector<int>({4, 1, 1, 1}), fed.label.shape());
    EXPECT_EQ(100, fed.label.cpu_data()[0]);
    EXPECT_EQ(103, fed.label.cpu_data()[3]);
  }
  typename TestFixture::Fed fed(this->Param(path, "annotated_data_param { anno_type: BBOX }"));
  fed.Step();
  EXPECT_EQ(vector<int>({1, 1, 4, 8}), fed.label.shape());
}

const char kAugmented[] =
    "transform_param { mirror: true mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.5"
    " resize_param { prob: 1 resize_mode: WARP height: 20 width: 18 interp_mode: LINEAR interp_mode: AREA"
    " interp_mode: NEAREST interp_mode: CUBIC interp_mode: LANCZOS4 } emit_constraint { emit_type: CENTER }"
    " distort_param { brightness_prob: 0.5 brightness_delta: 32 contrast_prob: 0.5 contrast_lower: 0.5"
    " contrast_upper: 1.5 hue_prob: 0.5 hue_delta: 18 saturation_prob: 0.5 saturation_lower: 0.5"
    " saturation_upper: 1.5 random_order_prob: 0.3 } expand_param { prob: 0.5 max_expand_ratio: 4 } }"
    " annotated_data_param { batch_sampler { max_sample: 1 max_trials: 1 } batch_sampler { sampler { min_scale: 0.3"
    " max_scale: 1 min_aspect_ratio: 0.5 max_aspect_ratio: 2 } sample_constraint { min_jaccard_overlap: 0.1 }"
    " max_sample: 1 max_trials: 50 } }";

// The same sequence for any number of threads and when it is started again; another one for another seed.
TYPED_TEST(AnnotatedDataTest, TestRepeatsExactly) {
  const LayerParameter param = this->Param(this->WriteRecords(7, {3, 0, 1}), kAugmented);
  const auto run = [&](const std::string& threads, unsigned seed) {
    this->Environment("SSDLITE_DATA_THREADS", threads);
    Caffe::set_random_seed(seed);
    typename TestFixture::Fed fed(param);
    return fed.All(9);
  };
  const std::vector<TypeParam> expected = run("1", 1701);
  EXPECT_EQ(expected, run("1", 1701));
  EXPECT_EQ(expected, run("2", 1701));
  EXPECT_EQ(expected, run("4", 1701));
  EXPECT_EQ(expected, run("13", 1701));
  EXPECT_NE(expected, run("2", 1702));
  // And passes differ from each other: with 7 records, batches 0-6 and 7-13 begin at the same record.
  Caffe::set_random_seed(1701);
  typename TestFixture::Fed fed(param);
  const std::vector<TypeParam> first = fed.All(7), second = fed.All(7);
  EXPECT_NE(first, second);
}

// Broken records are left out in place, once in each pass; the others keep what was drawn for them.
TYPED_TEST(AnnotatedDataTest, TestBrokenRecords) {
  std::vector<std::string> values;
  for (int i = 0; i < 9; ++i) { values.push_back(this->Record(i, 1).SerializeAsString()); }
  AnnotatedDatum record = this->Record(0, 1);
  values[0] = "no protobuf";
  record.mutable_datum()->set_data("no picture");
  values[3] = record.SerializeAsString();
  values[4] = this->Record(4, 1).SerializeAsString().substr(0, 40);
  record = this->Record(6, 1);
  record.mutable_annotation_group(0)->mutable_annotation(0)->mutable_bbox()->set_xmax(NAN);
  values[6] = record.SerializeAsString();
  record = this->Record(8, 1);
  record.clear_type();
  values[8] = record.SerializeAsString();
  typename TestFixture::Fed fed(this->Param(this->Write(values), ""));
  EXPECT_EQ(std::vector<int>({1, 2, 5, 7, 1, 2, 5, 7, 1, 2, 5, 7}), fed.Colours(3));
  fed.Step();
  EXPECT_EQ(5, fed.layer.broken_records());
  EXPECT_GE(fed.layer.records_left_out(), 3 * 5);
}

TYPED_TEST(AnnotatedDataTest, TestBrokenRecordsNamed) {
  const std::string path = this->Write({this->Record(0, 1).SerializeAsString(), "no protobuf"});
  const auto run = [&] {
    FLAGS_logtostderr = true;
    int broken;
    {
      typename TestFixture::Fed fed(this->Param(path, ""));
      fed.Colours(3);
      broken = fed.layer.broken_records();
    }
    _exit(broken);
  };
  EXPECT_EXIT(run(), ::testing::ExitedWithCode(1),
              "AnnotatedData layer 'data': record 00001 of .*lmdb cannot be read: it is not an AnnotatedDatum; it is "
              "left out \\(1 so far\\)");
}

TYPED_TEST(AnnotatedDataTest, TestStrict) {
  const std::string path = this->Write({this->Record(0, 1).SerializeAsString(), "no protobuf"});
  const auto run = [&](const char* strict) {
    this->Environment("SSDLITE_STRICT_DATA", strict);
    typename TestFixture::Fed fed(this->Param(path, ""));
    fed.Colours(3);
  };
  run("0");
  EXPECT_DEATH(run("1"), "Check failed: .*AnnotatedData layer 'data': record 00001 of .*lmdb cannot be read");
}

TYPED_TEST(AnnotatedDataTest, TestNothingSound) {
  const LayerParameter param = this->Param(this->Write({"no", "protobuf"}), "");
  EXPECT_DEATH(typename TestFixture::Fed fed(param), "layer 'data': not one record of .*lmdb can be read");
}

// Grey pictures among coloured ones become coloured, and the other way round; so do those with an alpha channel.
TYPED_TEST(AnnotatedDataTest, TestChannels) {
  const std::string path =
      this->Write({this->Record(1, 1).SerializeAsString(), this->Record(2, 1, 12, 16, 1).SerializeAsString(),
                   this->Record(3, 1, 12, 16, 4).SerializeAsString()});
  typename TestFixture::Fed fed(this->Param(path, ""));
  EXPECT_EQ(std::vector<int>({1, 2, 3, 1}), fed.Colours(1));
  EXPECT_EQ(3, fed.data.channels());
  EXPECT_EQ(0, fed.layer.broken_records());
  typename TestFixture::Fed grey(this->Param(path, "transform_param { force_gray: true }"));
  EXPECT_EQ(std::vector<int>({1, 2, 3, 1}), grey.Colours(1));
  EXPECT_EQ(1, grey.data.channels());
  const std::string other =
      this->Write({this->Record(2, 1, 12, 16, 1).SerializeAsString(), this->Record(1, 1).SerializeAsString()}, "other");
  typename TestFixture::Fed first(this->Param(other, ""));
  EXPECT_EQ(std::vector<int>({2, 1, 2, 1}), first.Colours(1));
  EXPECT_EQ(1, first.data.channels());
  typename TestFixture::Fed means(this->Param(other, "transform_param { mean_value: [0, 0, 0] }"));
  EXPECT_EQ(std::vector<int>({2, 1, 2, 1}), means.Colours(1));
  EXPECT_EQ(3, means.data.channels());
}

// Pictures that are not encoded go through the whole chain as well.
TYPED_TEST(AnnotatedDataTest, TestRawPictures) {
  std::vector<std::string> values;
  for (int i = 0; i < 4; ++i) {
    AnnotatedDatum record = this->Record(i, 1);
    Datum* datum = record.mutable_datum();
    datum->set_encoded(false);
    datum->set_channels(3);
    datum->set_height(2 + i);
    datum->set_width(5);
    datum->set_data(std::string(3 * (2 + i) * 5, static_cast<char>(10 * i)));
    values.push_back(record.SerializeAsString());
  }
  typename TestFixture::Fed fed(
      this->Param(this->Write(values), "transform_param { resize_param { height: 7 width: 6 } }"));
  EXPECT_EQ(std::vector<int>({0, 1, 2, 3}), fed.Colours(1));
  EXPECT_EQ(vector<int>({4, 3, 7, 6}), fed.data.shape());
}

TYPED_TEST(AnnotatedDataTest, TestSizes) {
  const std::string path =
      this->Write({this->Record(0, 1, 10, 20).SerializeAsString(), this->Record(1, 1, 20, 10).SerializeAsString()});
  // One picture a batch may have any size.
  const std::string single = "data_param { batch_size: 1 }";
  typename TestFixture::Fed fed(this->Param(path, single));
  fed.Step();
  EXPECT_EQ(vector<int>({1, 3, 10, 20}), fed.data.shape());
  fed.Step();
  EXPECT_EQ(vector<int>({1, 3, 20, 10}), fed.data.shape());
  const auto run = [&](const std::string& text) {
    typename TestFixture::Fed fed(this->Param(path, text));
    fed.Colours(1);
  };
  EXPECT_DEATH(run(""), "layer 'data': record 00001 gives a picture of 20 x 10, the batch it is in has 10 x 20");
  const std::string small = "resize_param { resize_mode: FIT_SMALL_SIZE height: 6 width: 6 }";
  EXPECT_DEATH(run("transform_param { " + small + "}"), "layer 'data': FIT_SMALL_SIZE without a crop");
  run("transform_param { crop_size: 6 " + small + "}");
}

// Several solvers see each record once, the first of them record 0.
TYPED_TEST(AnnotatedDataTest, TestSolversShareRecords) {
  LayerParameter param = this->Param(this->WriteRecords(9), "");
  param.set_phase(TRAIN);
  Caffe::set_solver_count(2);
  {
    typename TestFixture::Fed first(param), second(param);
    EXPECT_EQ(std::vector<int>({0, 2, 4, 6, 8, 1, 3, 5}), first.Colours(2));
    EXPECT_EQ(std::vector<int>({1, 3, 5, 7, 0, 2, 4, 6}), second.Colours(2));
  }
  Caffe::set_solver_count(1);
  typename TestFixture::Fed alone(param), beside(param);
  EXPECT_EQ(std::vector<int>({0, 1, 2, 3}), alone.Colours(1));
  EXPECT_EQ(std::vector<int>({0, 1, 2, 3}), beside.Colours(1));
}

// Stopping at once, and with the net far behind, ends all threads.
TYPED_TEST(AnnotatedDataTest, TestStops) {
  const LayerParameter param = this->Param(this->WriteRecords(9), kAugmented);
  for (int i = 0; i < 20; ++i) {
    typename TestFixture::Fed fed(param);
    fed.Colours(i % 3);
  }
}

TYPED_TEST(AnnotatedDataTest, TestMissingFiles) {
  const auto run = [&](const std::string& path, const std::string& text = "") {
    typename TestFixture::Fed fed(this->Param(path, text));
  };
  const std::string layer = "AnnotatedData layer 'data': ";
  EXPECT_DEATH(run(this->folder_ + "/none"), layer + "data_param.source .*/none does not exist");
  EXPECT_DEATH(run(""), layer + "data_param.source is not given");
  EXPECT_DEATH(run(this->folder_), layer + "data_param.source .* holds no data.mdb");
  const std::string map = this->folder_ + "/map.prototxt";
  std::ofstream(map).flush();
  EXPECT_DEATH(run(map), layer + "data_param.source .*map.prototxt is not a folder");
  EXPECT_DEATH(run(this->Write({}, "empty")), layer + "data_param.source .*empty holds no records");

  const std::string sound = this->WriteRecords(40, {1}, "sound");
  run(sound);
  const std::string with_map = "annotated_data_param { label_map_file: '" + map + "' }";
  EXPECT_DEATH(run(sound, with_map), layer + "label_map_file .*map.prototxt has no item");
  EXPECT_DEATH(run(sound, "annotated_data_param { label_map_file: '/none' }"),
               layer + "label_map_file /none does not exist");
  std::ofstream(map) << "no label map";
  EXPECT_DEATH(run(sound, with_map), layer + "label_map_file .*map.prototxt is not a label map");
  std::ofstream(map) << "item { name: 'cat' label: 1 }";
  run(sound, with_map);

  // A file that is no LMDB, and one that lost its end.
  const std::string data = sound + "/data.mdb";
  std::ifstream in(data, std::ios::binary);
  std::string content((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  std::ofstream(data, std::ios::binary) << content.substr(0, content.size() / 2);
  EXPECT_DEATH(run(sound), layer + "data_param.source .*sound is cut short");
  std::ofstream(data, std::ios::binary) << std::string(content.size(), 'x');
  EXPECT_DEATH(run(sound), layer + "data_param.source .*sound is not a sound LMDB");
}

TYPED_TEST(AnnotatedDataTest, TestBadParameters) {
  const std::string path = this->WriteRecords(3);
  const auto run = [&](const std::string& text) { typename TestFixture::Fed fed(this->Param(path, text)); };
  EXPECT_DEATH(run("data_param { batch_size: 0 }"), "layer 'data': data_param.batch_size must be positive");
  EXPECT_DEATH(run("transform_param { resize_param { height: 7 } }"),
               "layer 'data': resize_param needs height and width");
  EXPECT_DEATH(run("annotated_data_param { batch_sampler { sampler { min_scale: 2 } } }"),
               "layer 'data': batch_sampler");
  EXPECT_DEATH(run("transform_param { mean_value: 1 mean_value: 2 }"), "as many as channels");
  this->Environment("SSDLITE_DATA_THREADS", "many");
  EXPECT_DEATH(run(""), "SSDLITE_DATA_THREADS is 'many', must be a number from 1 to 64");
}

}  // namespace caffe
