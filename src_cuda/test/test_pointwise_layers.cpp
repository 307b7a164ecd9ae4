// ReLU6, HardSwish, HardSigmoid and Clip: one formula each, checked against
// plain code written from its definition, and GradientChecker.
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/clip_layer.hpp"
#include "caffe/layers/hardsigmoid_layer.hpp"
#include "caffe/layers/hardswish_layer.hpp"
#include "caffe/layers/relu6_layer.hpp"
#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace caffe {

namespace {

// The checker moves each input by this much both ways.
const double kStep = 1e-2;

LayerParameter Parse(const std::string& text) {
  LayerParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(text, &param)) << text;
  return param;
}

/// One layer with its formula in doubles and the places where it bends.
struct Case {
  std::string text;
  std::function<double(double)> value, slope;
  std::vector<double> kinks;
};

double Clamp(double x, double low, double high) {
  if (x < low) { return low; }
  if (x > high) { return high; }
  return x;
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  cases.push_back({"type: 'ReLU6'",
                   [](double x) { return Clamp(x, 0, 6); },
                   [](double x) { return x > 0 && x < 6 ? 1. : 0.; },
                   {0, 6}});
  cases.push_back({"type: 'ReLU6' relu6_param { negative_slope: 0.25 threshold: 4 }",
                   [](double x) { return x < 0 ? 0.25 * x : Clamp(x, 0, 4); },
                   [](double x) { return x < 0 ? 0.25 : (x < 4 ? 1. : 0.); },
                   {0, 4}});
  cases.push_back({"type: 'HardSwish'",
                   [](double x) { return x * Clamp(x + 3, 0, 6) / 6; },
                   [](double x) {
                     if (x < -3) { return 0.; }
                     return x > 3 ? 1. : (2 * x + 3) / 6;
                   },
                   {-3, 3}});
  cases.push_back({"type: 'HardSigmoid'",
                   [](double x) { return Clamp(0.2f * x + 0.5, 0, 1); },
                   [](double x) { return std::fabs(x) < 2.5 ? 0.2f : 0.; },
                   {-2.5, 2.5}});
  cases.push_back({"type: 'HardSigmoid' hardsigmoid_param { alpha: -0.5 beta: 0.25 }",
                   [](double x) { return Clamp(0.25 - 0.5 * x, 0, 1); },
                   [](double x) { return x > -1.5 && x < 0.5 ? -0.5 : 0.; },
                   {-1.5, 0.5}});
  cases.push_back({"type: 'Clip' clip_param { min: -1.5 max: 6 }",
                   [](double x) { return Clamp(x, -1.5, 6); },
                   [](double x) { return x > -1.5 && x < 6 ? 1. : 0.; },
                   {-1.5, 6}});
  return cases;
}

/// Fills with values from -9 to 9, unsorted, none within 5 steps of a kink.
template <typename Dtype>
void FillBetween(const std::vector<double>& kinks, Blob<Dtype>* blob) {
  const int count = blob->count();
  Dtype* data = blob->mutable_cpu_data();
  for (int i = 0; i < count; ++i) {
    double x = -9 + 18. * ((i * 37) % count + 0.5) / count;
    for (double kink : kinks) {
      if (std::fabs(x - kink) < 5 * kStep) { x = kink + 5 * kStep; }
    }
    data[i] = x;
  }
}

template <typename Dtype>
void FillDiff(Blob<Dtype>* blob) {
  for (int i = 0; i < blob->count(); ++i) { blob->mutable_cpu_diff()[i] = (i % 7 - 3) * 0.5; }
}

template <typename Dtype>
double Near(double expected) {
  return (sizeof(Dtype) == 4 ? 1e-6 : 1e-14) * std::max(1., std::fabs(expected));
}

}  // namespace

template <typename TypeParam>
class PointwiseLayersTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;

  shared_ptr<Layer<Dtype>> SetUp(const LayerParameter& param, Blob<Dtype>* bottom, Blob<Dtype>* top) {
    bottom_ = {bottom};
    top_ = {top};
    shared_ptr<Layer<Dtype>> layer = LayerRegistry<Dtype>::CreateLayer(param);
    layer->SetUp(bottom_, top_);
    return layer;
  }
  void Backward(Layer<Dtype>* layer) { layer->Backward(top_, std::vector<bool>(1, true), bottom_); }

  std::vector<Blob<Dtype>*> bottom_, top_;
};

TYPED_TEST_CASE(PointwiseLayersTest, TestDtypesAndDevices);

TYPED_TEST(PointwiseLayersTest, ForwardAndBackwardFollowTheFormula) {
  typedef typename TypeParam::Dtype Dtype;
  // Longer than two chunks of the threaded loop, and no multiple of one.
  const std::vector<int> shapes[] = {{2, 3, 4, 5}, {3, 7, 59, 61}, {1}};
  for (const Case& one : Cases()) {
    for (const std::vector<int>& shape : shapes) {
      SCOPED_TRACE(one.text);
      Blob<Dtype> bottom(shape), top;
      FillBetween(one.kinks, &bottom);
      shared_ptr<Layer<Dtype>> layer = this->SetUp(Parse(one.text), &bottom, &top);
      ASSERT_EQ(bottom.shape(), top.shape());
      layer->Forward(this->bottom_, this->top_);
      FillDiff(&top);
      this->Backward(layer.get());
      for (int i = 0; i < bottom.count(); ++i) {
        const double x = bottom.cpu_data()[i];
        const double y = one.value(x);
        const double dx = one.slope(x) * top.cpu_diff()[i];
        ASSERT_NEAR(y, top.cpu_data()[i], Near<Dtype>(y)) << "x = " << x;
        ASSERT_NEAR(dx, bottom.cpu_diff()[i], Near<Dtype>(dx)) << "x = " << x;
      }
    }
  }
}

TYPED_TEST(PointwiseLayersTest, InputsPassEveryKink) {
  typedef typename TypeParam::Dtype Dtype;
  for (const Case& one : Cases()) {
    Blob<Dtype> bottom(2, 3, 4, 5);
    FillBetween(one.kinks, &bottom);
    int low = 0, middle = 0, high = 0;
    for (int i = 0; i < bottom.count(); ++i) {
      const Dtype x = bottom.cpu_data()[i];
      (x < one.kinks[0] ? low : x < one.kinks[1] ? middle : high) += 1;
      for (double kink : one.kinks) { EXPECT_GT(std::fabs(x - kink), 2 * kStep); }
    }
    EXPECT_GT(low, 9);
    EXPECT_GT(middle, 9);
    EXPECT_GT(high, 9);
  }
}

TYPED_TEST(PointwiseLayersTest, Gradient) {
  typedef typename TypeParam::Dtype Dtype;
  for (const Case& one : Cases()) {
    SCOPED_TRACE(one.text);
    Blob<Dtype> bottom(2, 3, 4, 5), top;
    FillBetween(one.kinks, &bottom);
    shared_ptr<Layer<Dtype>> layer = this->SetUp(Parse(one.text), &bottom, &top);
    GradientChecker<Dtype> checker(kStep, 1e-3);
    checker.CheckGradientEltwise(layer.get(), this->bottom_, this->top_);
  }
}

TYPED_TEST(PointwiseLayersTest, InPlaceEqualsApart) {
  typedef typename TypeParam::Dtype Dtype;
  for (const Case& one : Cases()) {
    SCOPED_TRACE(one.text);
    Blob<Dtype> bottom(2, 3, 37, 41), top, both;
    FillBetween(one.kinks, &bottom);
    bottom.mutable_cpu_data()[0] = one.kinks[0];  // also at the bounds
    bottom.mutable_cpu_data()[1] = one.kinks[1];
    both.CopyFrom(bottom, false, true);
    shared_ptr<Layer<Dtype>> layer = this->SetUp(Parse(one.text), &bottom, &top);
    layer->Forward(this->bottom_, this->top_);
    FillDiff(&top);
    this->Backward(layer.get());
    layer = this->SetUp(Parse(one.text), &both, &both);
    layer->Forward(this->bottom_, this->top_);
    FillDiff(&both);
    this->Backward(layer.get());
    for (int i = 0; i < top.count(); ++i) {
      ASSERT_EQ(top.cpu_data()[i], both.cpu_data()[i]) << i;
      ASSERT_EQ(bottom.cpu_diff()[i], both.cpu_diff()[i]) << i;
    }
  }
}

TYPED_TEST(PointwiseLayersTest, AtTheBounds) {
  typedef typename TypeParam::Dtype Dtype;
  struct {
    const char* text;
    double x, slope;
  } const bounds[] = {
      // TensorFlow: Relu6Grad is 0 at both, clip_by_value passes at both.
      {"type: 'ReLU6'", 0, 0},
      {"type: 'ReLU6'", 6, 0},
      {"type: 'Clip' clip_param { min: 0 max: 6 }", 0, 1},
      {"type: 'Clip' clip_param { min: 0 max: 6 }", 6, 1},
      {"type: 'HardSwish'", -3, 0},
      {"type: 'HardSwish'", 3, 1},
      {"type: 'HardSigmoid' hardsigmoid_param { alpha: 0.25 }", -2, 0},
      {"type: 'HardSigmoid' hardsigmoid_param { alpha: 0.25 }", 2, 0},
  };
  for (const auto& bound : bounds) {
    SCOPED_TRACE(bound.text);
    Blob<Dtype> bottom(1, 1, 1, 1), top;
    bottom.mutable_cpu_data()[0] = bound.x;
    shared_ptr<Layer<Dtype>> layer = this->SetUp(Parse(bound.text), &bottom, &top);
    layer->Forward(this->bottom_, this->top_);
    top.mutable_cpu_diff()[0] = 1;
    this->Backward(layer.get());
    EXPECT_EQ(bound.slope, bottom.cpu_diff()[0]) << "x = " << bound.x;
  }
}

TYPED_TEST(PointwiseLayersTest, NanPasses) {
  typedef typename TypeParam::Dtype Dtype;
  for (const Case& one : Cases()) {
    SCOPED_TRACE(one.text);
    Blob<Dtype> bottom(1, 1, 5, 7), top;
    FillBetween(one.kinks, &bottom);
    bottom.mutable_cpu_data()[3] = std::numeric_limits<Dtype>::quiet_NaN();
    shared_ptr<Layer<Dtype>> layer = this->SetUp(Parse(one.text), &bottom, &top);
    layer->Forward(this->bottom_, this->top_);
    for (int i = 0; i < top.count(); ++i) { EXPECT_EQ(i == 3, std::isnan(top.cpu_data()[i])) << i; }
  }
}

TYPED_TEST(PointwiseLayersTest, NoGradientWhenNotAsked) {
  typedef typename TypeParam::Dtype Dtype;
  for (const Case& one : Cases()) {
    SCOPED_TRACE(one.text);
    Blob<Dtype> bottom(1, 1, 5, 7), top;
    FillBetween(one.kinks, &bottom);
    shared_ptr<Layer<Dtype>> layer = this->SetUp(Parse(one.text), &bottom, &top);
    layer->Forward(this->bottom_, this->top_);
    FillDiff(&top);
    caffe_set(bottom.count(), Dtype(42), bottom.mutable_cpu_diff());
    layer->Backward(this->top_, std::vector<bool>(1, false), this->bottom_);
    for (int i = 0; i < bottom.count(); ++i) { ASSERT_EQ(42, bottom.cpu_diff()[i]); }
  }
}

TYPED_TEST(PointwiseLayersTest, InPlaceInTestPhaseRefusesBackward) {
  typedef typename TypeParam::Dtype Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  for (const char* text : {"name: 'act' phase: TEST type: 'HardSwish'",
                           "name: 'act' phase: TEST type: 'Clip' clip_param { min: 0 max: 6 }"}) {
    Blob<Dtype> both(1, 1, 5, 7);
    FillBetween({}, &both);
    shared_ptr<Layer<Dtype>> layer = this->SetUp(Parse(text), &both, &both);
    layer->Forward(this->bottom_, this->top_);  // forward alone works
    EXPECT_DEATH(this->Backward(layer.get()), "layer act: in place");
  }
}

TYPED_TEST(PointwiseLayersTest, BadParametersNameTheLayer) {
  typedef typename TypeParam::Dtype Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const char* const texts[] = {"name: 'act' type: 'ReLU6' relu6_param { threshold: 0 }",
                               "name: 'act' type: 'ReLU6' relu6_param { negative_slope: -1 }",
                               "name: 'act' type: 'Clip' clip_param { min: 1 max: 0 }"};
  for (const char* text : texts) {
    Blob<Dtype> bottom(1, 1, 5, 7), top;
    EXPECT_DEATH(this->SetUp(Parse(text), &bottom, &top), "layer act: ");
  }
}

}  // namespace caffe
