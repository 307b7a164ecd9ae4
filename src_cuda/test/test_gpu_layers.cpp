// Layers whose GPU code is the fork's, or which have none: MaxUnPool against loops on each device, and BatchNorm and
// Scale on the GPU against the CPU, where test_norm_layers.cpp checks them against loops.
#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/batch_norm_layer.hpp"
#include "caffe/layers/maxunpool_layer.hpp"
#include "caffe/layers/scale_layer.hpp"
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

#ifndef CPU_ONLY

template <typename Dtype>
class GpuLayersTest : public GPUDeviceTest<Dtype> {
 protected:
  ~GpuLayersTest() override { Caffe::set_mode(Caffe::CPU); }

  static void ExpectNear(const Blob<Dtype>& wanted, const Blob<Dtype>& got, const bool diff, const std::string& what) {
    ASSERT_EQ(wanted.shape(), got.shape()) << what;
    const double near = sizeof(Dtype) == 4 ? 1e-4 : 1e-12;
    const Dtype* const right = diff ? wanted.cpu_diff() : wanted.cpu_data();
    const Dtype* const seen = diff ? got.cpu_diff() : got.cpu_data();
    for (int i = 0; i < got.count(); ++i) {
      ASSERT_NEAR(right[i], seen[i], near * std::max(1., std::fabs(double(right[i])))) << what << " at " << i;
    }
  }

  /// Runs two passes in both modes, from the same values.
  void CheckAgainstCpu(const std::string& text, const vector<int>& shape, const bool in_place) {
    SCOPED_TRACE(text);
    Blob<Dtype> bottom[2], other[2];
    shared_ptr<Layer<Dtype>> layers[2];
    for (int way = 0; way < 2; ++way) {
      Caffe::set_mode(way == 0 ? Caffe::CPU : Caffe::GPU);
      std::mt19937 random(17);
      bottom[way].Reshape(shape);
      Blob<Dtype>& top = in_place ? bottom[way] : other[way];
      const vector<Blob<Dtype>*> bottoms(1, &bottom[way]), tops(1, &top);
      layers[way] = LayerRegistry<Dtype>::CreateLayer(Parse(text));
      layers[way]->SetUp(bottoms, tops);
      for (const shared_ptr<Blob<Dtype>>& blob : layers[way]->blobs()) {
        FillNormal(&random, blob->mutable_cpu_data(), blob->count());
        for (int i = 0; i < blob->count(); ++i) { blob->mutable_cpu_data()[i] = std::fabs(blob->cpu_data()[i]) + 1; }
        FillNormal(&random, blob->mutable_cpu_diff(), blob->count());
      }
      for (int pass = 0; pass < 2; ++pass) {
        FillNormal(&random, bottom[way].mutable_cpu_data(), bottom[way].count());
        layers[way]->Forward(bottoms, tops);
        FillNormal(&random, top.mutable_cpu_diff(), top.count());
        layers[way]->Backward(tops, vector<bool>(1, true), bottoms);
      }
    }
    ExpectNear(in_place ? bottom[0] : other[0], in_place ? bottom[1] : other[1], false, "top");
    ExpectNear(bottom[0], bottom[1], true, "bottom's gradient");
    const bool learns = text.find("Scale") != std::string::npos;
    for (int b = 0; b < layers[0]->blobs().size(); ++b) {
      ExpectNear(*layers[0]->blobs()[b], *layers[1]->blobs()[b], learns, "blob " + std::to_string(b));
    }
  }
};

TYPED_TEST_CASE(GpuLayersTest, TestDtypes);

TYPED_TEST(GpuLayersTest, BatchNormAndScaleEqualTheCpus) {
  const vector<int> shapes[] = {{2, 3, 4, 5}, {1, 7, 1, 1}, {3, 2, 19, 17}, {4, 6}};
  for (const vector<int>& shape : shapes) {
    for (const bool in_place : {false, true}) {
      this->CheckAgainstCpu("type: 'BatchNorm' phase: TRAIN", shape, in_place);
      this->CheckAgainstCpu("type: 'BatchNorm' batch_norm_param { use_global_stats: true eps: 0.001 }", shape,
                            in_place);
      this->CheckAgainstCpu("type: 'Scale' scale_param { bias_term: true }", shape, in_place);
      this->CheckAgainstCpu("type: 'Scale'", shape, in_place);
    }
  }
}

TYPED_TEST(GpuLayersTest, Gradient) {
  for (const char* const text : {"type: 'BatchNorm' phase: TRAIN", "type: 'Scale' scale_param { bias_term: true }"}) {
    Blob<TypeParam> bottom(3, 2, 3, 4), top;
    std::mt19937 random(3);
    FillNormal(&random, bottom.mutable_cpu_data(), bottom.count());
    shared_ptr<Layer<TypeParam>> layer = LayerRegistry<TypeParam>::CreateLayer(Parse(text));
    GradientChecker<TypeParam> checker(1e-2, 1e-3);
    checker.CheckGradientExhaustive(layer.get(), {&bottom}, {&top});
  }
}

#endif

}  // namespace caffe
