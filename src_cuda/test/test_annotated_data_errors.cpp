// AnnotatedData: broken records, missing files and bad parameters.
#include <cmath>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "annotated_data_test.hpp"

namespace caffe {

template <typename Dtype>
class AnnotatedDataErrorsTest : public AnnotatedDataTest<Dtype> {};

TYPED_TEST_CASE(AnnotatedDataErrorsTest, TestDtypes);

// Broken records are skipped, once in each pass; the others keep their order.
TYPED_TEST(AnnotatedDataErrorsTest, TestBrokenRecords) {
  std::vector<std::string> values;
  for (int i = 0; i < 9; ++i) { values.push_back(this->Record(i, 1).SerializeAsString()); }
  AnnotatedDatum record = this->Record(0, 1);
  values[0] = "no protobuf";
  record.mutable_datum()->set_data("no image");
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

TYPED_TEST(AnnotatedDataErrorsTest, TestBrokenRecordsNamed) {
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
              "skipped \\(1 so far\\)");
}

TYPED_TEST(AnnotatedDataErrorsTest, TestStrict) {
  const std::string path = this->Write({this->Record(0, 1).SerializeAsString(), "no protobuf"});
  const auto run = [&](const char* strict) {
    this->Environment("SSDLITE_STRICT_DATA", strict);
    typename TestFixture::Fed fed(this->Param(path, ""));
    fed.Colours(3);
  };
  run("0");
  EXPECT_DEATH(run("1"), "Check failed: .*AnnotatedData layer 'data': record 00001 of .*lmdb cannot be read");
}

TYPED_TEST(AnnotatedDataErrorsTest, TestNothingSound) {
  const LayerParameter param = this->Param(this->Write({"no", "protobuf"}), "");
  EXPECT_DEATH(typename TestFixture::Fed fed(param), "layer 'data': not one record of .*lmdb can be read");
}

TYPED_TEST(AnnotatedDataErrorsTest, TestMissingFiles) {
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

TYPED_TEST(AnnotatedDataErrorsTest, TestBadParameters) {
  const std::string path = this->WriteRecords(3);
  const auto run = [&](const std::string& text) { typename TestFixture::Fed fed(this->Param(path, text)); };
  EXPECT_DEATH(run("data_param { batch_size: 0 }"), "layer 'data': data_param.batch_size is 0, must be 1 or more");
  EXPECT_DEATH(run("transform_param { resize_param { height: 7 } }"),
               "layer 'data': resize_param needs height and width");
  EXPECT_DEATH(run("annotated_data_param { batch_sampler { sampler { min_scale: 2 } } }"),
               "layer 'data': batch_sampler");
  EXPECT_DEATH(run("transform_param { mean_value: 1 mean_value: 2 }"),
               "there are 2 mean_value, must be none, one, or one for each of the 3");
  this->Environment("SSDLITE_DATA_THREADS", "many");
  EXPECT_DEATH(run(""), "SSDLITE_DATA_THREADS is 'many', must be a number from 1 to 64");
}

}  // namespace caffe
