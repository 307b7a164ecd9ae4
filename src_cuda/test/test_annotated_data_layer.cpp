// AnnotatedData: what comes out of sound records, in which order, and that a seed repeats it exactly.
#include <string>
#include <vector>

#include "annotated_data_test.hpp"

namespace caffe {

TYPED_TEST_CASE(AnnotatedDataTest, TestDtypes);

// Images and rows as they were written, pass after pass in the order of the keys.
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

TYPED_TEST(AnnotatedDataTest, TestOnlyImages) {
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

// A seed gives the same sequence for any number of threads and in every run; another seed gives another one.
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

// Grey images among coloured ones become coloured, and the other way round; so do those with an alpha channel.
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

// Images that are not encoded go through the whole chain as well.
TYPED_TEST(AnnotatedDataTest, TestRawImages) {
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
  // One image a batch may have any size.
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
  EXPECT_DEATH(run(""), "layer 'data': record 00001 gives an image of 20 x 10, its batch has 10 x 20");
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

}  // namespace caffe
