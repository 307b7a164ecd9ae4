// MaxUnPool against loops, on each device.
#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/maxunpool_layer.hpp"
#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace caffe {

namespace {

LayerParameter Parse(const std::string& text) {
  LayerParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(text, &param)) << text;
  return param;
}

template <typename Dtype>
void FillNormal(std::mt19937* random, Dtype* values, const int count) {
  std::normal_distribution<double> normal;
  for (int i = 0; i < count; ++i) { values[i] = static_cast<Dtype>(normal(*random)); }
}

}  // namespace

template <typename TypeParam>
class MaxUnPoolLayerTest : public MultiDeviceTest<TypeParam> {};

TYPED_TEST_CASE(MaxUnPoolLayerTest, TestDtypesAndDevices);

TYPED_TEST(MaxUnPoolLayerTest, EachValueGoesWhereItsMaskSays) {
  typedef typename TypeParam::Dtype Dtype;
  std::mt19937 random(5);
  for (const int size : {1, 2, 5, 19}) {
    Blob<Dtype> in(2, 3, size, size + 1), mask(2, 3, size, size + 1), out;
    const int places = 4 * size * (size + 1), values = size * (size + 1);
    FillNormal(&random, in.mutable_cpu_data(), in.count());
    std::vector<double> wanted(6 * places, 0.);
    for (int plane = 0; plane < 6; ++plane) {
      std::vector<int> order(places);
      for (int i = 0; i < places; ++i) { order[i] = i; }
      std::shuffle(order.begin(), order.end(), random);
      for (int i = 0; i < values; ++i) {
        mask.mutable_cpu_data()[plane * values + i] = order[i];
        wanted[plane * places + order[i]] = in.cpu_data()[plane * values + i];
      }
    }
    const vector<Blob<Dtype>*> bottoms = {&in, &mask}, tops = {&out};
    shared_ptr<Layer<Dtype>> layer = LayerRegistry<Dtype>::CreateLayer(
        Parse("type: 'MaxUnPool' max_unpool_param { dst_h: " + std::to_string(2 * size) +
              " dst_w: " + std::to_string(2 * size + 2) + " }"));
    layer->SetUp(bottoms, tops);
    for (int pass = 0; pass < 2; ++pass) {  // the second finds memory that the first has written
      layer->Forward(bottoms, tops);
      ASSERT_EQ(wanted.size(), out.count());
      for (int i = 0; i < out.count(); ++i) { ASSERT_EQ(Dtype(wanted[i]), out.cpu_data()[i]) << i; }
    }
  }
}

}  // namespace caffe
