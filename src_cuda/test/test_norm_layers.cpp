// BatchNorm and Scale on the CPU against plain loops, and the ones that their GPU code reads.
#include <algorithm>
#include <cmath>
#include <functional>
#include <sstream>
#include <vector>

#include "caffe/layers/batch_norm_layer.hpp"
#include "caffe/layers/scale_layer.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "cpu_layers_test.hpp"

namespace caffe {

/// The vectors of ones that the layers' GPU code sums with.
template <typename Dtype>
struct BatchNormOnes : BatchNormLayer<Dtype> {
  using BatchNormLayer<Dtype>::BatchNormLayer;
  vector<Blob<Dtype>*> ones() { return {&this->batch_sum_multiplier_, &this->spatial_sum_multiplier_}; }
};

template <typename Dtype>
struct ScaleOnes : ScaleLayer<Dtype> {
  using ScaleLayer<Dtype>::ScaleLayer;
  vector<Blob<Dtype>*> ones() { return {&this->sum_multiplier_}; }
};

/// Check that the ones of a layer are written when its bottom grows, and only then: a write on the CPU is a copy to the
/// GPU later. A value changed on purpose shows that nothing was written.
template <typename Dtype, typename LayerType>
void CheckOnes(const std::string& type) {
  Caffe::set_mode(Caffe::GPU);
  LayerParameter param;
  param.set_type(type);
  LayerType layer(param);
  Blob<Dtype> bottom(2, 3, 4, 5), top;
  const vector<Blob<Dtype>*> bottoms(1, &bottom), tops(1, &top);
  layer.SetUp(bottoms, tops);
  for (Blob<Dtype>* const blob : layer.ones()) { blob->mutable_cpu_data()[0] = 7; }
  layer.Reshape(bottoms, tops);
  bottom.Reshape(2, 3, 2, 2);
  layer.Reshape(bottoms, tops);
  for (const Blob<Dtype>* const blob : layer.ones()) { EXPECT_EQ(Dtype(7), blob->cpu_data()[0]) << type; }
  bottom.Reshape(30, 3, 8, 9);
  layer.Reshape(bottoms, tops);
  for (const Blob<Dtype>* const blob : layer.ones()) {
    ASSERT_GE(blob->count(), 30) << type;
    for (int i = 0; i < blob->count(); ++i) { EXPECT_EQ(Dtype(1), blob->cpu_data()[i]) << type << " " << i; }
  }
  Caffe::set_mode(Caffe::CPU);
}

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

TYPED_TEST(NormLayersTest, OnesAreWrittenOnce) {
  CheckOnes<TypeParam, BatchNormOnes<TypeParam>>("BatchNorm");
  CheckOnes<TypeParam, ScaleOnes<TypeParam>>("Scale");
}

}  // namespace caffe
