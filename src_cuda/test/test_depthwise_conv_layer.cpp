// DepthwiseConvolution: forward and gradients against plain loops in doubles and against the grouped Convolution, over
// random kernels, strides, paddings, dilations and sizes.
#include <algorithm>
#include <cmath>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/conv_layer.hpp"
#include "caffe/layers/depthwise_conv_layer.hpp"
#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/util/parallel.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace caffe {

namespace {

struct Setting {
  int num, channels, height, width;
  int kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  bool same;  // tf_pad: SAME in place of pad
  bool bias;

  bool fits() const {
    return same ||
           ((kernel_h - 1) * dilation_h < height + 2 * pad_h && (kernel_w - 1) * dilation_w < width + 2 * pad_w);
  }

  LayerParameter Param(const std::string& type, bool with_group = true) const {
    std::ostringstream text;
    text << "name: 'dw' type: '" << type << "' convolution_param { num_output: " << channels
         << " kernel_h: " << kernel_h << " kernel_w: " << kernel_w << " stride_h: " << stride_h
         << " stride_w: " << stride_w << " dilation: " << dilation_h << " dilation: " << dilation_w
         << " bias_term: " << (bias ? "true" : "false")
         << " weight_filler { type: 'gaussian' } bias_filler { type: 'gaussian' } ";
    if (with_group) { text << "group: " << channels << " "; }
    if (same) {
      text << "tf_pad: SAME }";
    } else {
      text << "pad_h: " << pad_h << " pad_w: " << pad_w << " }";
    }
    LayerParameter made;
    CHECK(google::protobuf::TextFormat::ParseFromString(text.str(), &made)) << text.str();
    return made;
  }
};

std::ostream& operator<<(std::ostream& out, const Setting& s) {
  return out << s.num << "x" << s.channels << "x" << s.height << "x" << s.width << " kernel " << s.kernel_h << "x"
             << s.kernel_w << " stride " << s.stride_h << "x" << s.stride_w << " pad " << s.pad_h << "x" << s.pad_w
             << " dilation " << s.dilation_h << "x" << s.dilation_w << (s.same ? " SAME" : "");
}

/// The padding before the input, as TensorFlow describes SAME (tf.nn, "padding").
int SameBefore(int in, int extent, int stride) {
  const int rest = in % stride;
  return std::max(0, rest == 0 ? extent - stride : extent - rest) / 2;
}

/// Sums and gradients by definition. The gradient of an output is `slope`.
template <typename Dtype>
struct Plain {
  std::vector<double> top, bottom_diff, weight_diff, bias_diff;
  double most_added = 0;  // the largest sum of sizes behind one of the parameters' gradients

  Plain(const Setting& s, const Blob<Dtype>& bottom, const Blob<Dtype>& weights, const Dtype* bias,
        const Blob<Dtype>& out) {
    const int pad_h = s.same ? SameBefore(s.height, (s.kernel_h - 1) * s.dilation_h + 1, s.stride_h) : s.pad_h;
    const int pad_w = s.same ? SameBefore(s.width, (s.kernel_w - 1) * s.dilation_w + 1, s.stride_w) : s.pad_w;
    top.assign(out.count(), 0);
    std::vector<double> weight_size(weights.count(), 0), bias_size(s.channels, 0);
    bottom_diff.assign(bottom.count(), 0);
    weight_diff.assign(weights.count(), 0);
    bias_diff.assign(s.channels, 0);
    const int out_height = out.shape(2), out_width = out.shape(3);
    const Dtype* slopes = out.cpu_diff();
    const Dtype* kernels = weights.cpu_data();
    const Dtype* values = bottom.cpu_data();
    for (int n = 0; n < s.num; ++n) {
      for (int c = 0; c < s.channels; ++c) {
        for (int y = 0; y < out_height; ++y) {
          for (int x = 0; x < out_width; ++x) {
            const int at = ((n * s.channels + c) * out_height + y) * out_width + x;
            const double slope = slopes[at];
            if (bias != nullptr) { top[at] = bias[c]; }
            bias_diff[c] += slope;
            bias_size[c] += std::fabs(slope);
            for (int i = 0; i < s.kernel_h; ++i) {
              for (int j = 0; j < s.kernel_w; ++j) {
                const int iy = y * s.stride_h - pad_h + i * s.dilation_h;
                const int ix = x * s.stride_w - pad_w + j * s.dilation_w;
                if (iy < 0 || ix < 0 || iy >= s.height || ix >= s.width) { continue; }
                const int from = ((n * s.channels + c) * s.height + iy) * s.width + ix;
                const int tap = (c * s.kernel_h + i) * s.kernel_w + j;
                const double weight = kernels[tap], value = values[from];
                top[at] += weight * value;
                bottom_diff[from] += weight * slope;
                weight_diff[tap] += value * slope;
                weight_size[tap] += std::fabs(value * slope);
              }
            }
          }
        }
      }
    }
    most_added = std::max(*std::max_element(weight_size.begin(), weight_size.end()),
                          *std::max_element(bias_size.begin(), bias_size.end()));
  }
};

/// The largest difference relative to the largest value, or to `most` where large values cancel out.
template <typename Dtype>
double Apart(const std::vector<double>& wanted, const Dtype* got, double most = 1e-3) {
  double apart = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (!std::isfinite(got[i])) { return INFINITY; }
    apart = std::max(apart, std::fabs(wanted[i] - got[i]));
    most = std::max(most, std::fabs(wanted[i]));
  }
  return apart / most;
}

/// Measured over some thousand random shapes: 4.5e-7 (float) and 8e-16 (double) at most.
template <typename Dtype>
double Tolerance() {
  return sizeof(Dtype) == 4 ? 2e-6 : 4e-15;
}

template <typename Dtype>
std::vector<double> Values(const Dtype* from, int count) {
  return std::vector<double>(from, from + count);
}

}  // namespace

template <typename TypeParam>
class DepthwiseConvolutionLayerTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;

  Setting Random() {
    const auto among = [this](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); };
    Setting s;
    do {
      const bool square = among(0, 3) > 0;
      s.num = among(1, 3);
      s.channels = among(1, 5);
      s.height = among(1, 40);
      s.width = among(1, 75);
      s.kernel_h = among(1, 7);
      s.kernel_w = square ? s.kernel_h : among(1, 7);
      s.stride_h = among(1, 3);
      s.stride_w = square ? s.stride_h : among(1, 3);
      s.dilation_h = among(0, 3) > 0 ? 1 : among(1, 3);
      s.dilation_w = square ? s.dilation_h : among(1, 3);
      s.pad_h = among(0, 5);
      s.pad_w = among(0, 5);
      s.same = among(0, 3) == 0;
      s.bias = among(0, 1) == 1;
    } while (!s.fits());
    return s;
  }

  void Fill(Blob<Dtype>* blob, bool diff) {
    std::normal_distribution<double> normal;
    Dtype* values = diff ? blob->mutable_cpu_diff() : blob->mutable_cpu_data();
    for (int i = 0; i < blob->count(); ++i) { values[i] = static_cast<Dtype>(normal(random_)); }
  }

  /// Forward and backward of one shape against the loops; the parameters' gradients start at 1, and are added to.
  void CheckAgainstLoops(const Setting& s, const std::string& type) {
    std::ostringstream about;
    about << s;
    SCOPED_TRACE(about.str());
    Blob<Dtype> bottom(s.num, s.channels, s.height, s.width), top;
    Fill(&bottom, false);
    const vector<Blob<Dtype>*> bottoms(1, &bottom), tops(1, &top);
    shared_ptr<Layer<Dtype>> layer = LayerRegistry<Dtype>::CreateLayer(s.Param(type));
    layer->SetUp(bottoms, tops);
    ASSERT_TRUE(dynamic_cast<DepthwiseConvolutionLayer<Dtype>*>(layer.get()) != nullptr);
    layer->Forward(bottoms, tops);
    Fill(&top, true);
    for (int b = 0; b < layer->blobs().size(); ++b) {
      Dtype* diff = layer->blobs()[b]->mutable_cpu_diff();
      std::fill_n(diff, layer->blobs()[b]->count(), Dtype(1));
    }
    caffe_set(bottom.count(), Dtype(NAN), bottom.mutable_cpu_diff());
    layer->Backward(tops, vector<bool>(1, true), bottoms);
    const Blob<Dtype>& weights = *layer->blobs()[0];
    Plain<Dtype> plain(s, bottom, weights, s.bias ? layer->blobs()[1]->cpu_data() : nullptr, top);
    for (double& x : plain.weight_diff) { x += 1; }
    for (double& x : plain.bias_diff) { x += 1; }
    EXPECT_LE(Apart(plain.top, top.cpu_data()), Tolerance<Dtype>()) << "top";
    EXPECT_LE(Apart(plain.bottom_diff, bottom.cpu_diff()), Tolerance<Dtype>()) << "bottom's gradient";
    EXPECT_LE(Apart(plain.weight_diff, weights.cpu_diff(), plain.most_added), Tolerance<Dtype>())
        << "weights' gradient";
    if (s.bias) {
      EXPECT_LE(Apart(plain.bias_diff, layer->blobs()[1]->cpu_diff(), plain.most_added), Tolerance<Dtype>())
          << "bias's gradient";
    }
  }

  std::mt19937 random_{1701};
};

TYPED_TEST_CASE(DepthwiseConvolutionLayerTest, TestDtypesAndDevices);

TYPED_TEST(DepthwiseConvolutionLayerTest, RandomShapesAgainstLoops) {
  const char* const types[] = {"DepthwiseConvolution", "ConvolutionDepthwise"};
  for (int i = 0; i < 300; ++i) { this->CheckAgainstLoops(this->Random(), types[i % 2]); }
}

TYPED_TEST(DepthwiseConvolutionLayerTest, ShapesOfTheNets) {
  // Those of MobileNet V2 and V3 SSDLite at fewer channels, with exact padding by pad, by a larger kernel and by SAME.
  const int sides[] = {150, 75, 38, 19, 10, 5, 3, 2, 1};
  for (const int side : sides) {
    for (int kernel = 3; kernel <= 6; ++kernel) {
      for (int stride = 1; stride <= 2; ++stride) {
        const int pad = (kernel - 1) / 2;
        if (side + 2 * pad < kernel) { continue; }
        const Setting s = {2, 2, side, side, kernel, kernel, stride, stride, pad, pad, 1, 1, false, true};
        this->CheckAgainstLoops(s, "DepthwiseConvolution");
        Setting same = s;
        same.same = true;
        same.height += 1;  // not square
        this->CheckAgainstLoops(same, "DepthwiseConvolution");
      }
    }
  }
}

TYPED_TEST(DepthwiseConvolutionLayerTest, AnyNumberOfThreads) {
  const int before = ParallelThreads();
  for (const int threads : {1, 2, 5}) {
    SetParallelThreads(threads);
    const Setting s = {2, 48, 19, 21, 3, 3, 1, 1, 1, 1, 1, 1, false, true};
    this->CheckAgainstLoops(s, "DepthwiseConvolution");
  }
  SetParallelThreads(before);
}

TYPED_TEST(DepthwiseConvolutionLayerTest, EqualsGroupedConvolution) {
  typedef typename TypeParam::Dtype Dtype;
  for (int i = 0; i < 60; ++i) {
    const Setting s = this->Random();
    std::ostringstream about;
    about << s;
    SCOPED_TRACE(about.str());
    Blob<Dtype> bottom(s.num, s.channels, s.height, s.width), other_bottom, top, other_top;
    this->Fill(&bottom, false);
    other_bottom.CopyFrom(bottom, false, true);
    const vector<Blob<Dtype>*> bottoms(1, &bottom), others(1, &other_bottom), tops(1, &top), other_tops(1, &other_top);
    DepthwiseConvolutionLayer<Dtype> layer(s.Param("DepthwiseConvolution"));
    layer.SetUp(bottoms, tops);
    LayerParameter grouped_param = s.Param("Convolution");
    grouped_param.mutable_convolution_param()->set_engine(ConvolutionParameter_Engine_CAFFE);
    shared_ptr<Layer<Dtype>> grouped = LayerRegistry<Dtype>::CreateLayer(grouped_param);
    grouped->SetUp(others, other_tops);
    ASSERT_TRUE(dynamic_cast<DepthwiseConvolutionLayer<Dtype>*>(grouped.get()) == nullptr);
    ASSERT_EQ(layer.blobs().size(), grouped->blobs().size());
    for (int b = 0; b < layer.blobs().size(); ++b) {
      ASSERT_EQ(layer.blobs()[b]->shape(), grouped->blobs()[b]->shape());
      grouped->blobs()[b]->CopyFrom(*layer.blobs()[b]);
    }
    layer.Forward(bottoms, tops);
    grouped->Forward(others, other_tops);
    ASSERT_EQ(top.shape(), other_top.shape());
    EXPECT_LE(Apart(Values(other_top.cpu_data(), top.count()), top.cpu_data()), Tolerance<Dtype>());
    this->Fill(&top, true);
    other_top.CopyFrom(top, true);
    for (int b = 0; b < layer.blobs().size(); ++b) {
      caffe_set(layer.blobs()[b]->count(), Dtype(0), layer.blobs()[b]->mutable_cpu_diff());
      caffe_set(layer.blobs()[b]->count(), Dtype(0), grouped->blobs()[b]->mutable_cpu_diff());
    }
    layer.Backward(tops, vector<bool>(1, true), bottoms);
    grouped->Backward(other_tops, vector<bool>(1, true), others);
    EXPECT_LE(Apart(Values(other_bottom.cpu_diff(), bottom.count()), bottom.cpu_diff()), Tolerance<Dtype>());
    for (int b = 0; b < layer.blobs().size(); ++b) {
      EXPECT_LE(Apart(Values(grouped->blobs()[b]->cpu_diff(), layer.blobs()[b]->count()), layer.blobs()[b]->cpu_diff()),
                8 * Tolerance<Dtype>());
    }
  }
}

TYPED_TEST(DepthwiseConvolutionLayerTest, Gradient) {
  typedef typename TypeParam::Dtype Dtype;
  const Setting settings[] = {
      {2, 2, 6, 5, 3, 3, 1, 1, 1, 1, 1, 1, false, true},  {1, 2, 7, 8, 3, 3, 2, 2, 1, 1, 1, 1, true, true},
      {1, 2, 7, 6, 4, 4, 2, 2, 1, 1, 1, 1, false, false}, {1, 2, 6, 7, 5, 5, 1, 1, 2, 2, 1, 1, false, true},
      {1, 1, 8, 7, 6, 6, 2, 2, 2, 2, 1, 1, false, true},  {1, 2, 9, 7, 3, 2, 3, 1, 2, 0, 2, 1, false, true},
  };
  for (const Setting& s : settings) {
    std::ostringstream about;
    about << s;
    SCOPED_TRACE(about.str());
    Blob<Dtype> bottom(s.num, s.channels, s.height, s.width), top;
    this->Fill(&bottom, false);
    DepthwiseConvolutionLayer<Dtype> layer(s.Param("DepthwiseConvolution"));
    GradientChecker<Dtype> checker(1e-2, 1e-3);
    checker.CheckGradientExhaustive(&layer, vector<Blob<Dtype>*>(1, &bottom), vector<Blob<Dtype>*>(1, &top));
  }
}

TYPED_TEST(DepthwiseConvolutionLayerTest, FrozenPartsKeepTheirGradients) {
  typedef typename TypeParam::Dtype Dtype;
  const Setting s = {1, 3, 5, 6, 3, 3, 1, 1, 1, 1, 1, 1, false, true};
  for (int frozen = 0; frozen < 2; ++frozen) {
    Blob<Dtype> bottom(s.num, s.channels, s.height, s.width), top;
    this->Fill(&bottom, false);
    const vector<Blob<Dtype>*> bottoms(1, &bottom), tops(1, &top);
    DepthwiseConvolutionLayer<Dtype> layer(s.Param("DepthwiseConvolution"));
    layer.SetUp(bottoms, tops);
    layer.Forward(bottoms, tops);
    this->Fill(&top, true);
    for (int b = 0; b < 2; ++b) {
      layer.set_param_propagate_down(b, b != frozen);
      caffe_set(layer.blobs()[b]->count(), Dtype(7), layer.blobs()[b]->mutable_cpu_diff());
    }
    caffe_set(bottom.count(), Dtype(7), bottom.mutable_cpu_diff());
    layer.Backward(tops, vector<bool>(1, false), bottoms);
    for (int b = 0; b < 2; ++b) {
      const Dtype* diff = layer.blobs()[b]->cpu_diff();
      EXPECT_EQ(b == frozen,
                std::all_of(diff, diff + layer.blobs()[b]->count(), [](Dtype x) { return x == Dtype(7); }));
    }
    EXPECT_TRUE(std::all_of(bottom.cpu_diff(), bottom.cpu_diff() + bottom.count(), [](Dtype x) { return x == 7; }));
  }
}

TYPED_TEST(DepthwiseConvolutionLayerTest, GroupIsTheChannelsWhenLeftOut) {
  typedef typename TypeParam::Dtype Dtype;
  const Setting s = {1, 4, 6, 6, 3, 3, 1, 1, 1, 1, 1, 1, false, true};
  for (const char* type : {"DepthwiseConvolution", "ConvolutionDepthwise"}) {
    Blob<Dtype> bottom(s.num, s.channels, s.height, s.width), top;
    const vector<Blob<Dtype>*> bottoms(1, &bottom), tops(1, &top);
    shared_ptr<Layer<Dtype>> layer = LayerRegistry<Dtype>::CreateLayer(s.Param(type, false));
    layer->SetUp(bottoms, tops);
    EXPECT_EQ(vector<int>({4, 1, 3, 3}), layer->blobs()[0]->shape());
    EXPECT_STREQ(type, layer->type());
  }
}

TYPED_TEST(DepthwiseConvolutionLayerTest, SeveralChannelsAGroupIsAConvolution) {
  typedef typename TypeParam::Dtype Dtype;
  // group == num_output, but the bottom has twice as many channels.
  const Setting s = {2, 3, 6, 7, 3, 3, 1, 1, 1, 1, 1, 1, false, true};
  Blob<Dtype> bottom(2, 6, 6, 7), top, other_top;
  this->Fill(&bottom, false);
  const vector<Blob<Dtype>*> bottoms(1, &bottom), tops(1, &top), other_tops(1, &other_top);
  DepthwiseConvolutionLayer<Dtype> layer(s.Param("Convolution"));
  ConvolutionLayer<Dtype> plain(s.Param("Convolution"));
  layer.SetUp(bottoms, tops);
  plain.SetUp(bottoms, other_tops);
  for (int b = 0; b < 2; ++b) { plain.blobs()[b]->CopyFrom(*layer.blobs()[b]); }
  layer.Forward(bottoms, tops);
  plain.Forward(bottoms, other_tops);
  EXPECT_EQ(0, Apart(Values(other_top.cpu_data(), top.count()), top.cpu_data()));
  this->Fill(&top, true);
  for (const auto& blob : layer.blobs()) { caffe_set(blob->count(), Dtype(0), blob->mutable_cpu_diff()); }
  layer.Backward(tops, vector<bool>(1, true), bottoms);
  EXPECT_EQ(vector<int>({3, 2, 3, 3}), layer.blobs()[0]->shape());
}

}  // namespace caffe
