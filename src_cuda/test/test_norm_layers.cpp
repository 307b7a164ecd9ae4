// BatchNorm and Scale on the CPU against plain loops, and on each device against the CPU.
#include <algorithm>
#include <cmath>
#include <functional>
#include <sstream>
#include <vector>

#include "caffe/filler.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/batch_norm_layer.hpp"
#include "caffe/layers/scale_layer.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "cpu_layers_test.hpp"

namespace caffe {

template <typename Dtype>
class NormLayersTest : public CpuLayersTest<Dtype> {};

TYPED_TEST_CASE(NormLayersTest, Numbers);

TYPED_TEST(NormLayersTest, BatchNormAgainstLoops) {
  typedef TypeParam Dtype;
  for (int round = 0; round < 20; ++round) {
    const int num = this->Among(1, 5), channels = this->Among(1, 9), height = this->Among(1, 12),
              width = this->Among(1, 23);
    const bool in_place = round % 2 == 0;
    Blob<Dtype> bottom(num, channels, height, width), other;
    this->Fill(&bottom);
    const std::vector<Dtype> x(bottom.cpu_data(), bottom.cpu_data() + bottom.count());
    Blob<Dtype>& top = in_place ? bottom : other;
    const vector<Blob<Dtype>*> bottoms(1, &bottom), tops(1, &top);
    shared_ptr<Layer<Dtype>> layer =
        Make<Dtype>("type: 'BatchNorm' batch_norm_param { eps: 0.25 moving_average_fraction: 0.875 }");
    layer->SetUp(bottoms, tops);
    for (int pass = 0; pass < 2; ++pass) {
      std::copy(x.begin(), x.end(), bottom.mutable_cpu_data());
      layer->Forward(bottoms, tops);
    }
    this->Fill(top.mutable_cpu_diff(), top.count());
    const std::vector<Dtype> dy(top.cpu_diff(), top.cpu_diff() + top.count());
    const std::vector<Dtype> y(top.cpu_data(), top.cpu_data() + top.count());
    layer->Backward(tops, vector<bool>(1, true), bottoms);
    EXPECT_NEAR(1.875, layer->blobs()[2]->cpu_data()[0], 1e-6);
    const int size = height * width;
    const double count = num * size;
    for (int c = 0; c < channels; ++c) {
      const auto sum = [&](const std::function<double(int)>& of) {
        double total = 0;
        for (int n = 0; n < num; ++n) {
          for (int i = 0; i < size; ++i) { total += of((n * channels + c) * size + i); }
        }
        return total;
      };
      const double mean = sum([&](int i) { return x[i]; }) / count;
      const double variance = sum([&](int i) { return (x[i] - mean) * (x[i] - mean); }) / count;
      const double deviation = std::sqrt(variance + 0.25);
      EXPECT_NEAR(1.875 * mean, layer->blobs()[0]->cpu_data()[c], this->kNear);
      EXPECT_NEAR(1.875 * variance * (count > 1 ? count / (count - 1) : 1), layer->blobs()[1]->cpu_data()[c],
                  2 * this->kNear);
      const double slope = sum([&](int i) { return dy[i] * (x[i] - mean) / deviation; }) / count;
      const double level = sum([&](int i) { return dy[i]; }) / count;
      for (int n = 0; n < num; ++n) {
        for (int i = (n * channels + c) * size; i < (n * channels + c + 1) * size; ++i) {
          const double wanted = (x[i] - mean) / deviation;
          EXPECT_NEAR(wanted, y[i], this->kNear);
          EXPECT_NEAR((dy[i] - level - slope * wanted) / deviation, bottom.cpu_diff()[i], 10 * this->kNear);
        }
      }
    }
  }
}

TYPED_TEST(NormLayersTest, BatchNormWithStoredStatistics) {
  typedef TypeParam Dtype;
  Blob<Dtype> bottom(2, 3, 4, 5), top;
  this->Fill(&bottom);
  const vector<Blob<Dtype>*> bottoms(1, &bottom), tops(1, &top);
  shared_ptr<Layer<Dtype>> layer = Make<Dtype>("type: 'BatchNorm' batch_norm_param { eps: 0.5 }", TEST);
  layer->SetUp(bottoms, tops);
  for (const double weight : {4., 0.}) {  // 0: mean and variance are taken as 0
    for (int c = 0; c < 3; ++c) {
      layer->blobs()[0]->mutable_cpu_data()[c] = c - 1;
      layer->blobs()[1]->mutable_cpu_data()[c] = c + 1;
    }
    layer->blobs()[2]->mutable_cpu_data()[0] = weight;
    layer->Forward(bottoms, tops);
    this->Fill(top.mutable_cpu_diff(), top.count());
    layer->Backward(tops, vector<bool>(1, true), bottoms);
    for (int i = 0; i < bottom.count(); ++i) {
      const int c = i / 20 % 3;
      const double mean = weight == 0 ? 0 : (c - 1) / weight, variance = weight == 0 ? 0 : (c + 1) / weight;
      EXPECT_NEAR((bottom.cpu_data()[i] - mean) / std::sqrt(variance + 0.5), top.cpu_data()[i], this->kNear);
      EXPECT_NEAR(top.cpu_diff()[i] / std::sqrt(variance + 0.5), bottom.cpu_diff()[i], this->kNear);
    }
    EXPECT_EQ(Dtype(weight), layer->blobs()[2]->cpu_data()[0]);
  }
}

TYPED_TEST(NormLayersTest, BatchNormGradient) {
  typedef TypeParam Dtype;
  Blob<Dtype> bottom(3, 2, 3, 4), top;
  this->Fill(&bottom);
  shared_ptr<Layer<Dtype>> layer = Make<Dtype>("type: 'BatchNorm'");
  GradientChecker<Dtype> checker(1e-2, 1e-3);
  checker.CheckGradientExhaustive(layer.get(), vector<Blob<Dtype>*>(1, &bottom), vector<Blob<Dtype>*>(1, &top));
}

TYPED_TEST(NormLayersTest, ScaleAgainstLoops) {
  typedef TypeParam Dtype;
  struct Case {
    vector<int> bottom, scale;
    int axis;
  };
  const Case cases[] = {{{3, 4, 5, 7}, {4}, 1}, {{2, 3, 1, 1}, {3}, 1},    {{2, 3, 4, 5}, {2, 3}, 0},
                        {{4, 3, 6}, {6}, 2},    {{2, 3, 4}, {2, 3, 4}, 0}, {{5, 40}, {40}, 1},
                        {{2, 3, 4, 5}, {}, 0},  {{1, 65, 33, 31}, {65}, 1}};
  for (const Case& at : cases) {
    for (int way = 0; way < 4; ++way) {  // with a learned scale: in place or not; with a second bottom: bias or not
      const bool learned = way < 2, in_place = way == 1, biased = way != 2;
      std::ostringstream text;
      text << "type: 'Scale' scale_param { axis: " << at.axis << " bias_term: " << (biased ? "true" : "false");
      if (learned) { text << " num_axes: " << at.scale.size(); }
      text << " filler { type: 'gaussian' } bias_filler { type: 'gaussian' } }";
      SCOPED_TRACE(text.str());
      Blob<Dtype> bottom(at.bottom), scale(at.scale), other;
      this->Fill(&bottom);
      this->Fill(&scale);
      Blob<Dtype>& top = in_place ? bottom : other;
      vector<Blob<Dtype>*> bottoms(1, &bottom), tops(1, &top);
      if (!learned) { bottoms.push_back(&scale); }
      shared_ptr<Layer<Dtype>> layer = Make<Dtype>(text.str());
      layer->SetUp(bottoms, tops);
      ASSERT_EQ((learned ? 1 : 0) + (biased ? 1 : 0), layer->blobs().size());
      const std::vector<Dtype> x(bottom.cpu_data(), bottom.cpu_data() + bottom.count());
      layer->Forward(bottoms, tops);
      this->Fill(top.mutable_cpu_diff(), top.count());
      const std::vector<Dtype> dy(top.cpu_diff(), top.cpu_diff() + top.count());
      for (const auto& blob : layer->blobs()) { caffe_set(blob->count(), Dtype(2), blob->mutable_cpu_diff()); }
      layer->Backward(tops, vector<bool>(2, true), bottoms);
      const Blob<Dtype>& used = learned ? *layer->blobs()[0] : scale;
      const int scales = used.count(), inner = bottom.count(at.axis + at.scale.size());
      std::vector<double> scale_diff(scales, learned ? 2 : 0), bias_diff(scales, 2);
      for (int i = 0; i < bottom.count(); ++i) {
        const int s = i / inner % scales;
        const double shift = biased ? layer->blobs().back()->cpu_data()[s] : 0;
        EXPECT_NEAR(x[i] * used.cpu_data()[s] + shift, top.cpu_data()[i], this->kNear);
        EXPECT_NEAR(dy[i] * used.cpu_data()[s], bottom.cpu_diff()[i], this->kNear);
        scale_diff[s] += static_cast<double>(x[i]) * dy[i];
        bias_diff[s] += dy[i];
      }
      for (int s = 0; s < scales; ++s) {
        EXPECT_NEAR(scale_diff[s], used.cpu_diff()[s], 20 * this->kNear);
        if (biased) { EXPECT_NEAR(bias_diff[s], layer->blobs().back()->cpu_diff()[s], 20 * this->kNear); }
      }
    }
  }
}

/// What a BatchNorm or Scale gives, forward and backward, with the device's mode set: the top, the gradients of the
/// bottoms and of the layer's own blobs, and what the blobs hold afterwards.
template <typename Dtype>
vector<vector<Dtype>> ForwardAndBack(const LayerParameter& param, const vector<vector<int>>& shapes,
                                     const bool in_place) {
  vector<shared_ptr<Blob<Dtype>>> blobs;
  vector<Blob<Dtype>*> bottoms;
  FillerParameter filler_param;
  filler_param.set_std(2);
  filler_param.set_mean(0.5);
  GaussianFiller<Dtype> filler(filler_param);
  Caffe::set_random_seed(11);
  for (const vector<int>& shape : shapes) {
    blobs.emplace_back(new Blob<Dtype>(shape));
    filler.Fill(blobs.back().get());
    bottoms.push_back(blobs.back().get());
  }
  Blob<Dtype> apart;
  const vector<Blob<Dtype>*> tops(1, in_place ? bottoms[0] : &apart);
  const auto layer = LayerRegistry<Dtype>::CreateLayer(param);
  layer->SetUp(bottoms, tops);
  for (const auto& blob : layer->blobs()) {
    caffe_rng_gaussian<Dtype>(blob->count(), 1, 0.3, blob->mutable_cpu_diff());
  }
  layer->Forward(bottoms, tops);
  vector<vector<Dtype>> found;
  const auto take = [&found](const Dtype* values, const int count) { found.emplace_back(values, values + count); };
  take(tops[0]->cpu_data(), tops[0]->count());
  caffe_rng_gaussian<Dtype>(tops[0]->count(), 0, 1, tops[0]->mutable_cpu_diff());
  layer->Backward(tops, vector<bool>(bottoms.size(), true), bottoms);
  for (const Blob<Dtype>* const bottom : bottoms) { take(bottom->cpu_diff(), bottom->count()); }
  for (const auto& blob : layer->blobs()) {
    take(blob->cpu_data(), blob->count());
    if (param.type() == "Scale") { take(blob->cpu_diff(), blob->count()); }
  }
  return found;
}

template <typename TypeParam>
class NormDevicesTest : public MultiDeviceTest<TypeParam> {};

TYPED_TEST_CASE(NormDevicesTest, TestDtypesAndDevices);

template <typename TypeParam>
void CheckAgainstCpu(const LayerParameter& param, const vector<vector<int>>& shapes, const bool in_place) {
  typedef typename TypeParam::Dtype Dtype;
  const auto found = ForwardAndBack<Dtype>(param, shapes, in_place);
  Caffe::set_mode(Caffe::CPU);
  const auto wanted = ForwardAndBack<Dtype>(param, shapes, in_place);
  Caffe::set_mode(TypeParam::device);
  const double bound = sizeof(Dtype) == 4 ? 2e-5 : 1e-12;
  ASSERT_EQ(wanted.size(), found.size());
  for (size_t k = 0; k < wanted.size(); ++k) {
    double largest = 1;
    for (const Dtype value : wanted[k]) { largest = std::max(largest, std::abs(static_cast<double>(value))); }
    for (size_t i = 0; i < wanted[k].size(); ++i) {
      ASSERT_NEAR(wanted[k][i], found[k][i], bound * largest)
          << param.ShortDebugString() << " blob " << k << " at " << i;
    }
  }
}

TYPED_TEST(NormDevicesTest, BatchNormAgainstTheCpu) {
  // A plane smaller and larger than a block, more than one share of a channel, one value a channel, and no planes.
  const vector<vector<int>> shapes = {{3, 5, 4, 6}, {2, 3, 70, 41}, {6, 2, 61, 59},
                                      {1, 7, 1, 1}, {9, 4},         {5, 300, 2, 2}};
  for (const vector<int>& shape : shapes) {
    for (const bool in_place : {false, true}) {
      for (const bool stored : {false, true}) {
        if (shape == shapes[3] && !stored) { continue; }  // one value has no variance
        LayerParameter param;
        param.set_type("BatchNorm");
        param.mutable_batch_norm_param()->set_use_global_stats(stored);
        CheckAgainstCpu<TypeParam>(param, {shape}, in_place);
      }
    }
  }
}

TYPED_TEST(NormDevicesTest, ScaleAgainstTheCpu) {
  for (const bool bias : {false, true}) {
    for (const bool in_place : {false, true}) {
      LayerParameter param;
      param.set_type("Scale");
      param.mutable_scale_param()->set_bias_term(bias);
      param.mutable_scale_param()->mutable_filler()->set_type("gaussian");
      for (const vector<int>& shape :
           vector<vector<int>>{{3, 5, 4, 6}, {2, 3, 70, 41}, {6, 2, 61, 59}, {4, 7, 1, 1}, {1, 6}}) {
        CheckAgainstCpu<TypeParam>(param, {shape}, in_place);
      }
      param.mutable_scale_param()->set_axis(0);
      param.mutable_scale_param()->set_num_axes(2);
      CheckAgainstCpu<TypeParam>(param, {{3, 5, 4, 6}}, in_place);
      if (!in_place) { CheckAgainstCpu<TypeParam>(param, {{3, 5, 7, 9}, {3, 5}}, false); }  // squeeze and excite
    }
  }
}

TYPED_TEST(NormDevicesTest, Gradient) {
  typedef typename TypeParam::Dtype Dtype;
  for (const char* const type : {"BatchNorm", "Scale"}) {
    LayerParameter param;
    param.set_type(type);
    param.mutable_scale_param()->set_bias_term(true);
    param.mutable_batch_norm_param()->set_use_global_stats(false);
    Blob<Dtype> bottom(3, 2, 3, 4), top;
    FillerParameter filler_param;
    GaussianFiller<Dtype>(filler_param).Fill(&bottom);
    const auto layer = LayerRegistry<Dtype>::CreateLayer(param);
    GradientChecker<Dtype> checker(1e-2, 1e-3);
    checker.CheckGradientExhaustive(layer.get(), {&bottom}, {&top});
  }
}

}  // namespace caffe
