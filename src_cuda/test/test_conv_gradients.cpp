// Gradients of Convolution on each engine, by GradientChecker; Deconvolution as the convolution run backwards.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "caffe/layers/deconv_layer.hpp"
#include "conv_layers_test.hpp"

namespace caffe {

template <typename TypeParam>
class ConvGradientsTest : public ConvLayersTest<TypeParam> {};

TYPED_TEST_CASE(ConvGradientsTest, TestDtypesAndDevices);

TYPED_TEST(ConvGradientsTest, Gradient) {
  const vector<int> shape = {2, 2, 5, 4};
  this->CheckGradient("num_output: 2 kernel_size: 3 stride: 2", shape);
  this->CheckGradient("num_output: 2 kernel_size: 3 pad: 1", shape, 2);
  this->CheckGradient("num_output: 4 kernel_size: 1", shape);
  this->CheckGradient("num_output: 2 kernel_h: 2 kernel_w: 3 stride: 3 pad: 2", shape);
  this->CheckGradient(
      "num_output: 3 kernel_size: 3 dilation: 2 pad: 1"
      " bias_term: false",
      shape);
}

TYPED_TEST(ConvGradientsTest, GradientInGroups) {
  this->CheckGradient("num_output: 4 kernel_size: 3 pad: 1 group: 2", {2, 4, 3, 4});
  this->CheckGradient("num_output: 3 kernel_size: 3 stride: 2 group: 3", {2, 3, 5, 4});
}

TYPED_TEST(ConvGradientsTest, GradientOfSame) {
  this->CheckGradient("num_output: 2 kernel_size: 3 stride: 2 tf_pad: SAME", {2, 2, 6, 5});
  this->CheckGradient("num_output: 2 kernel_size: 5 stride: 2 tf_pad: SAME group: 2", {1, 2, 6, 4}, 2);
  this->CheckGradient("num_output: 2 kernel_size: 2 dilation: 2 tf_pad: SAME", {1, 2, 4, 5});
  this->CheckGradient(
      "num_output: 2 kernel_size: 3 stride: 2 tf_pad: SAME"
      " force_nd_im2col: true",
      {1, 2, 6, 5});
}

TYPED_TEST(ConvGradientsTest, GradientOfThreeAxes) {
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> in(vector<int>({1, 2, 2, 4, 3})), out;
  Fill(&in);
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
  ConvolutionLayer<Dtype> layer(Parse("num_output: 2 kernel_size: 2 stride: [1, 2, 1] tf_pad: SAME"));
  GradientChecker<Dtype> checker(1e-2, 1e-3);
  checker.CheckGradientExhaustive(&layer, bottom, top);
}

TYPED_TEST(ConvGradientsTest, GradientsAddUp) {
  typedef typename TypeParam::Dtype Dtype;
  // Solvers with iter_size run backward twice before an update.
  Blob<Dtype> in(2, 4, 6, 5), out;
  Fill(&in);
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
  for (shared_ptr<Layer<Dtype>>& layer : this->Layers(Parse("num_output: 4 kernel_size: 3 stride: 2 tf_pad: SAME"))) {
    layer->SetUp(bottom, top);
    for (const auto& blob : layer->blobs()) { caffe_set(blob->count(), Dtype(0), blob->mutable_cpu_diff()); }
    layer->Forward(bottom, top);
    for (int i = 0; i < out.count(); ++i) { out.mutable_cpu_diff()[i] = i % 5 - 2; }
    vector<Dtype> once[2];
    for (int times = 1; times <= 2; ++times) {
      layer->Backward(top, vector<bool>(1, true), bottom);
      for (int b = 0; b < 2; ++b) {
        const Blob<Dtype>& blob = *layer->blobs()[b];
        if (times == 1) { once[b].assign(blob.cpu_diff(), blob.cpu_diff() + blob.count()); }
        for (int i = 0; i < blob.count(); ++i) {
          EXPECT_NEAR(times * once[b][i], blob.cpu_diff()[i], 1e-5 * std::max(Dtype(1), std::fabs(once[b][i])));
        }
      }
    }
  }
}

TYPED_TEST(ConvGradientsTest, FrozenWeightsAndNoBottomGradient) {
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> in(2, 4, 6, 5), out;
  Fill(&in);
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
  for (shared_ptr<Layer<Dtype>>& layer : this->Layers(Parse("num_output: 4 kernel_size: 3 stride: 2 tf_pad: SAME"))) {
    layer->SetUp(bottom, top);
    layer->Forward(bottom, top);
    caffe_set(out.count(), Dtype(1), out.mutable_cpu_diff());
    caffe_set(in.count(), Dtype(42), in.mutable_cpu_diff());
    for (int b = 0; b < 2; ++b) {
      layer->set_param_propagate_down(b, false);
      caffe_set(layer->blobs()[b]->count(), Dtype(42), layer->blobs()[b]->mutable_cpu_diff());
    }
    layer->Backward(top, vector<bool>(1, false), bottom);
    EXPECT_EQ(42, in.cpu_diff()[7]);
    EXPECT_EQ(42, layer->blobs()[0]->cpu_diff()[0]);
    EXPECT_EQ(42, layer->blobs()[1]->cpu_diff()[0]);
    layer->Backward(top, vector<bool>(1, true), bottom);
    EXPECT_NE(42, in.cpu_diff()[7]);
    EXPECT_EQ(42, layer->blobs()[0]->cpu_diff()[0]);
  }
}

TYPED_TEST(ConvGradientsTest, DeconvolutionRunsItBackwards) {
  typedef typename TypeParam::Dtype Dtype;
  // <conv(x), y> == <x, deconv(y)> with the same weights.
  const std::string text = "num_output: 4 kernel_size: 3 stride: 2 pad: 1 group: 2 bias_term: false";
  Blob<Dtype> x(2, 2, 7, 9), conv_x, y, deconv_y;
  Fill(&x);
  vector<Blob<Dtype>*> bottom(1, &x), top(1, &conv_x);
  ConvolutionLayer<Dtype> conv(Parse(text));
  conv.SetUp(bottom, top);
  conv.Forward(bottom, top);
  y.ReshapeLike(conv_x);
  Fill(&y);
  LayerParameter param = Parse(text);
  param.set_type("Deconvolution");
  param.mutable_convolution_param()->set_num_output(2);
  bottom[0] = &y;
  top[0] = &deconv_y;
  DeconvolutionLayer<Dtype> deconv(param);
  deconv.SetUp(bottom, top);
  ASSERT_EQ(x.shape(), deconv_y.shape());
  deconv.blobs()[0]->CopyFrom(*conv.blobs()[0]);
  deconv.Forward(bottom, top);
  double left = 0, right = 0;
  for (int i = 0; i < y.count(); ++i) { left += double(conv_x.cpu_data()[i]) * y.cpu_data()[i]; }
  for (int i = 0; i < x.count(); ++i) { right += double(x.cpu_data()[i]) * deconv_y.cpu_data()[i]; }
  EXPECT_NEAR(left, right, 1e-4 * std::max(1., std::fabs(left)));
}

TYPED_TEST(ConvGradientsTest, GradientOfDeconvolution) {
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> in(2, 2, 3, 2), out;
  Fill(&in);
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
  DeconvolutionLayer<Dtype> layer(Parse("num_output: 2 kernel_size: 3 stride: 2 pad: 1"));
  GradientChecker<Dtype> checker(1e-2, 1e-3);
  checker.CheckGradientExhaustive(&layer, bottom, top);
}

}  // namespace caffe
