// Convolution: every spelling of padding, stride, dilation and group against
// plain loops, on each engine; tf_pad against TensorFlow's rule for SAME.
#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/conv_layer.hpp"
#include "caffe/layers/deconv_layer.hpp"
#ifdef USE_CUDNN
#include "caffe/layers/cudnn_conv_layer.hpp"
#endif
#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/util/parallel.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace caffe {

namespace {

LayerParameter Parse(const std::string& text) {
  LayerParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(
      "name: 'conv' type: 'Convolution' convolution_param { " + text +
          " weight_filler { type: 'gaussian' } bias_filler { type: 'gaussian' }"
          " }",
      &param))
      << text;
  return param;
}

/// What a convolution of two axes is told, in numbers.
struct Setting {
  int kernel_h, kernel_w, stride_h, stride_w, dilation, group;
  int pad_h, pad_w;  // -1: SAME

  std::string Text(int num_output) const {
    std::ostringstream out;
    out << "num_output: " << num_output << " kernel_h: " << kernel_h << " kernel_w: " << kernel_w
        << " stride_h: " << stride_h << " stride_w: " << stride_w << " dilation: " << dilation << " group: " << group;
    if (pad_h < 0) {
      out << " tf_pad: SAME";
    } else {
      out << " pad_h: " << pad_h << " pad_w: " << pad_w;
    }
    return out.str();
  }
};

/// TensorFlow's words on SAME (tf.nn, "padding"): where the stride divides the
/// input, max(extent - stride, 0) in all, else max(extent - in % stride, 0);
/// the smaller half goes before.
int SameBefore(int in, int extent, int stride) {
  const int rest = in % stride;
  const int total = rest == 0 ? extent - stride : extent - rest;
  return total > 0 ? total / 2 : 0;
}

template <typename Dtype>
double At(const Blob<Dtype>& blob, int n, int c, int y, int x) {
  if (y < 0 || x < 0 || y >= blob.shape(2) || x >= blob.shape(3)) { return 0; }
  return blob.data_at(n, c, y, x);
}

/// The convolution by its definition, in doubles.
template <typename Dtype>
void Naive(const Blob<Dtype>& in, const Setting& set, const vector<shared_ptr<Blob<Dtype>>>& weights,
           Blob<double>* out) {
  const int outputs = weights[0]->shape(0), inputs = weights[0]->shape(1);
  const int extent_h = (set.kernel_h - 1) * set.dilation + 1;
  const int extent_w = (set.kernel_w - 1) * set.dilation + 1;
  int before_h = set.pad_h, before_w = set.pad_w, out_h, out_w;
  if (set.pad_h < 0) {
    before_h = SameBefore(in.shape(2), extent_h, set.stride_h);
    before_w = SameBefore(in.shape(3), extent_w, set.stride_w);
    out_h = std::ceil(in.shape(2) / double(set.stride_h));
    out_w = std::ceil(in.shape(3) / double(set.stride_w));
  } else {
    out_h = (in.shape(2) + 2 * before_h - extent_h) / set.stride_h + 1;
    out_w = (in.shape(3) + 2 * before_w - extent_w) / set.stride_w + 1;
  }
  out->Reshape(in.shape(0), outputs, out_h, out_w);
  for (int n = 0; n < in.shape(0); ++n) {
    for (int o = 0; o < outputs; ++o) {
      for (int y = 0; y < out_h; ++y) {
        for (int x = 0; x < out_w; ++x) {
          double sum = weights.size() > 1 ? weights[1]->cpu_data()[o] : Dtype(0);
          const int first = o / (outputs / set.group) * inputs;
          for (int c = 0; c < inputs; ++c) {
            for (int i = 0; i < set.kernel_h; ++i) {
              for (int j = 0; j < set.kernel_w; ++j) {
                sum += double(weights[0]->data_at(o, c, i, j)) * At(in, n, first + c,
                                                                    y * set.stride_h - before_h + i * set.dilation,
                                                                    x * set.stride_w - before_w + j * set.dilation);
              }
            }
          }
          out->mutable_cpu_data()[out->offset(n, o, y, x)] = sum;
        }
      }
    }
  }
}

template <typename Dtype>
void Fill(Blob<Dtype>* blob) {
  FillerParameter param;
  GaussianFiller<Dtype>(param).Fill(blob);
}

template <typename Dtype>
void ExpectSame(const Blob<double>& wanted, const Blob<Dtype>& got) {
  ASSERT_EQ(wanted.shape(), got.shape());
  const double tolerance = sizeof(Dtype) == 4 ? 2e-5 : 1e-12;
  for (int i = 0; i < got.count(); ++i) {
    const double value = wanted.cpu_data()[i];
    ASSERT_NEAR(value, got.cpu_data()[i], tolerance * std::max(1., std::fabs(value))) << "at " << i;
  }
}

}  // namespace

template <typename TypeParam>
class ConvLayersTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;

  ConvLayersTest() { Caffe::set_random_seed(1701); }

  /// Every class that this mode can run it with; by type last, as a net would.
  vector<shared_ptr<Layer<Dtype>>> Layers(const LayerParameter& param) {
    vector<shared_ptr<Layer<Dtype>>> layers;
    layers.emplace_back(new ConvolutionLayer<Dtype>(param));
#ifdef USE_CUDNN
    if (Caffe::mode() == Caffe::GPU) { layers.emplace_back(new CuDNNConvolutionLayer<Dtype>(param)); }
#endif
    layers.push_back(LayerRegistry<Dtype>::CreateLayer(param));
    return layers;
  }
  void CheckForward(const Setting& set, int n, int c, int h, int w, int num_output, bool bias = true) {
    SCOPED_TRACE(set.Text(num_output) + " on " + std::to_string(h) + "x" + std::to_string(w));
    Blob<Dtype> in(n, c, h, w), out;
    Fill(&in);
    vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
    const LayerParameter param = Parse(set.Text(num_output) + (bias ? "" : " bias_term: false"));
    for (shared_ptr<Layer<Dtype>>& layer : Layers(param)) {
      layer->SetUp(bottom, top);
      layer->Forward(bottom, top);
      Blob<double> wanted;
      Naive(in, set, layer->blobs(), &wanted);
      ASSERT_NO_FATAL_FAILURE(ExpectSame(wanted, out));
    }
  }
  void CheckGradient(const std::string& text, const vector<int>& shape, int bottoms = 1) {
    SCOPED_TRACE(text);
    Blob<Dtype> in[2], out[2];
    vector<Blob<Dtype>*> bottom, top;
    for (int i = 0; i < bottoms; ++i) {
      in[i].Reshape(shape);
      Fill(&in[i]);
      bottom.push_back(&in[i]);
      top.push_back(&out[i]);
    }
    for (shared_ptr<Layer<Dtype>>& layer : Layers(Parse(text))) {
      GradientChecker<Dtype> checker(1e-2, 1e-3);
      checker.CheckGradientExhaustive(layer.get(), bottom, top);
    }
  }
};

TYPED_TEST_CASE(ConvLayersTest, TestDtypesAndDevices);

TYPED_TEST(ConvLayersTest, SameAsTensorFlow) {
  for (int h : {7, 8, 9, 10}) {
    for (int kernel : {1, 2, 3, 5}) {
      for (int stride : {1, 2, 3}) {
        for (int dilation : {1, 2}) {
          // TensorFlow has no stride with dilation; the rule reads on.
          const Setting set = {kernel, kernel == 5 ? 2 : kernel, stride, stride == 3 ? 2 : stride, dilation, 1, -1, -1};
          this->CheckForward(set, 2, 3, h, 11 - h / 4, 4);
          if (this->HasFatalFailure()) { return; }
        }
      }
    }
  }
}

TYPED_TEST(ConvLayersTest, SameInGroups) {
  for (int group : {1, 2, 4}) {
    for (int num_output : {4, 8}) {
      for (int h : {6, 9}) {
        for (int stride : {1, 2}) {
          const Setting set = {3, 3, stride, stride, 1, group, -1, -1};
          this->CheckForward(set, 2, 4, h, 8, num_output, h == 6);
          if (this->HasFatalFailure()) { return; }
        }
      }
    }
  }
}

TYPED_TEST(ConvLayersTest, SamePadsLessBeforeThanAfter) {
  typedef typename TypeParam::Dtype Dtype;
  // Ones on ones count the places of the input that each window meets.
  struct {
    int in, kernel;
    vector<Dtype> counts;
  } const rows[] = {
      {4, 3, {3, 2}},     // 0 before, 1 after
      {6, 5, {4, 5, 3}},  // 1 before, 2 after
      {5, 3, {2, 3, 2}},  // 1, 1
      {4, 1, {1, 1}},     // none: the last place meets no window
  };
  for (const auto& row : rows) {
    Blob<Dtype> in(1, 1, row.in, 1), out;
    caffe_set(in.count(), Dtype(1), in.mutable_cpu_data());
    LayerParameter param;
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
        "type: 'Convolution' convolution_param { num_output: 1 kernel_h: " + std::to_string(row.kernel) +
            " kernel_w: 1 stride: 2 tf_pad: SAME"
            " weight_filler { type: 'constant' value: 1 } }",
        &param));
    vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
    for (shared_ptr<Layer<Dtype>>& layer : this->Layers(param)) {
      layer->SetUp(bottom, top);
      layer->Forward(bottom, top);
      EXPECT_EQ(row.counts, vector<Dtype>(out.cpu_data(), out.cpu_data() + out.count()));
    }
  }
}

TYPED_TEST(ConvLayersTest, ValidIsNoPadding) {
  typedef typename TypeParam::Dtype Dtype;
  // tf_pad stands in place of pad, which is not read beside it.
  for (const char* text : {"kernel_size: 3 stride: 2 tf_pad: VALID", "kernel_size: 3 stride: 2 tf_pad: VALID pad: 5"}) {
    Blob<Dtype> in(2, 3, 8, 7), out;
    Fill(&in);
    vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
    for (shared_ptr<Layer<Dtype>>& layer : this->Layers(Parse(std::string("num_output: 2 ") + text))) {
      layer->SetUp(bottom, top);
      layer->Forward(bottom, top);
      const Setting set = {3, 3, 2, 2, 1, 1, 0, 0};
      Blob<double> wanted;
      Naive(in, set, layer->blobs(), &wanted);
      ExpectSame(wanted, out);
    }
  }
}

TYPED_TEST(ConvLayersTest, SameFollowsTheInputsSize) {
  typedef typename TypeParam::Dtype Dtype;
  const Setting set = {3, 5, 2, 2, 1, 1, -1, -1};
  Blob<Dtype> in(2, 3, 8, 8), out;
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
  for (shared_ptr<Layer<Dtype>>& layer : this->Layers(Parse(set.Text(4)))) {
    in.Reshape(2, 3, 8, 8);
    layer->SetUp(bottom, top);
    const int sizes[][3] = {{2, 8, 8}, {1, 7, 9}, {3, 9, 10}, {2, 8, 8}};
    for (const auto& size : sizes) {
      in.Reshape(size[0], 3, size[1], size[2]);
      Fill(&in);
      layer->Reshape(bottom, top);
      layer->Forward(bottom, top);
      Blob<double> wanted;
      Naive(in, set, layer->blobs(), &wanted);
      ExpectSame(wanted, out);
    }
  }
}

TYPED_TEST(ConvLayersTest, SymmetricPadding) {
  const Setting sets[] = {
      {3, 3, 1, 1, 1, 1, 1, 1}, {3, 3, 2, 2, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 0, 0},
      {1, 1, 2, 2, 1, 2, 0, 0}, {1, 1, 1, 1, 1, 1, 1, 2}, {3, 5, 1, 2, 1, 2, 2, 0},
      {4, 4, 2, 2, 1, 4, 1, 1}, {3, 2, 3, 1, 2, 1, 4, 3}, {5, 3, 2, 3, 1, 1, 4, 7},  // windows that meet padding alone
      {2, 2, 3, 3, 1, 1, 0, 0},                                                      // places that no window meets
  };
  for (const Setting& set : sets) {
    this->CheckForward(set, 2, 4, 9, 6, 8);
    this->CheckForward(set, 1, 4, 5, 7, 4, false);
    if (this->HasFatalFailure()) { return; }
  }
}

TYPED_TEST(ConvLayersTest, WideRowsOfFewChannels) {
  // Rows that fill vectors of any processor: these go without columns.
  const Setting sets[] = {
      {4, 4, 2, 2, 1, 1, 1, 1}, {3, 3, 2, 2, 1, 1, -1, -1}, {3, 3, 1, 1, 1, 1, 1, 1},   {3, 2, 1, 2, 2, 1, 3, 2},
      {2, 5, 3, 3, 1, 1, 0, 7}, {1, 1, 2, 2, 1, 1, 0, 0},   {5, 3, 1, 1, 3, 1, -1, -1}, {3, 3, 2, 2, 1, 1, 33, 65},
  };
  for (const Setting& set : sets) {
    this->CheckForward(set, 2, 3, 13, 64 * set.stride_w, 9);
    this->CheckForward(set, 1, 1, 30, 126 * set.stride_w - 1, 16, false);
    if (this->HasFatalFailure()) { return; }
  }
}

TYPED_TEST(ConvLayersTest, ThreadsAgree) {
  typedef typename TypeParam::Dtype Dtype;
  // Large enough for several threads to make the columns and add them up.
  const Setting set = {3, 3, 2, 2, 1, 1, -1, -1};
  this->CheckForward(set, 1, 3, 130, 131, 4);
  Blob<Dtype> in(1, 3, 130, 131), out;
  Fill(&in);
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
  ConvolutionLayer<Dtype> layer(Parse(set.Text(4)));
  layer.SetUp(bottom, top);
  const int usual = ParallelThreads();
  vector<Dtype> outputs[2], diffs[2];
  for (int k = 0; k < 2; ++k) {
    SetParallelThreads(k == 0 ? 1 : 4);
    layer.Forward(bottom, top);
    outputs[k].assign(out.cpu_data(), out.cpu_data() + out.count());
    caffe_copy(out.count(), out.cpu_data(), out.mutable_cpu_diff());
    layer.Backward(top, vector<bool>(1, true), bottom);
    diffs[k].assign(in.cpu_diff(), in.cpu_diff() + in.count());
  }
  SetParallelThreads(usual);
  EXPECT_EQ(outputs[0], outputs[1]);
  EXPECT_EQ(diffs[0], diffs[1]);
}

TYPED_TEST(ConvLayersTest, NdPathEqualsPlanarPath) {
  typedef typename TypeParam::Dtype Dtype;
  const std::string text = "num_output: 4 kernel_size: 3 stride: 2 tf_pad: SAME group: 2 ";
  Blob<Dtype> in(2, 4, 8, 7), planar_out, nd_out;
  Fill(&in);
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &planar_out);
  ConvolutionLayer<Dtype> planar(Parse(text));
  planar.SetUp(bottom, top);
  planar.Forward(bottom, top);
  ConvolutionLayer<Dtype> nd(Parse(text + "force_nd_im2col: true"));
  top[0] = &nd_out;
  nd.SetUp(bottom, top);
  for (int i = 0; i < 2; ++i) { nd.blobs()[i]->CopyFrom(*planar.blobs()[i]); }
  nd.Forward(bottom, top);
  ASSERT_EQ(planar_out.shape(), nd_out.shape());
  for (int i = 0; i < nd_out.count(); ++i) { EXPECT_EQ(planar_out.cpu_data()[i], nd_out.cpu_data()[i]); }
}

TYPED_TEST(ConvLayersTest, OneAndThreeAxes) {
  typedef typename TypeParam::Dtype Dtype;
  // A third axis of size 1 and a kernel of 1 there change nothing; likewise
  // with one axis against two.
  Blob<Dtype> in(2, 3, 8, 7), flat, deep, line;
  Fill(&in);
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &flat);
  ConvolutionLayer<Dtype> two(Parse("num_output: 2 kernel_size: 3 stride: 2 tf_pad: SAME"));
  two.SetUp(bottom, top);
  two.Forward(bottom, top);
  ConvolutionLayer<Dtype> three(
      Parse("num_output: 2 kernel_size: [1, 3, 3] stride: [1, 2, 2]"
            " tf_pad: SAME"));
  in.Reshape({2, 3, 1, 8, 7});
  top[0] = &deep;
  three.SetUp(bottom, top);
  three.blobs()[0]->CopyFrom(*two.blobs()[0], false, true);
  three.blobs()[0]->Reshape({2, 3, 1, 3, 3});
  three.blobs()[1]->CopyFrom(*two.blobs()[1]);
  three.Forward(bottom, top);
  ASSERT_EQ(vector<int>({2, 2, 1, 4, 4}), deep.shape());
  for (int i = 0; i < deep.count(); ++i) { ASSERT_NEAR(flat.cpu_data()[i], deep.cpu_data()[i], 1e-5); }
  ConvolutionLayer<Dtype> one(Parse("num_output: 2 kernel_size: 3 stride: 2 tf_pad: SAME"));
  in.Reshape({2, 3, 56});
  top[0] = &line;
  one.SetUp(bottom, top);
  one.Forward(bottom, top);
  ASSERT_EQ(vector<int>({2, 2, 28}), line.shape());
  in.Reshape({2, 3, 1, 56});
  const Setting set = {1, 3, 1, 2, 1, 1, -1, -1};
  one.blobs()[0]->Reshape({2, 3, 1, 3});
  Blob<double> wanted;
  Naive(in, set, one.blobs(), &wanted);
  wanted.Reshape(line.shape());
  ExpectSame(wanted, line);
}

TYPED_TEST(ConvLayersTest, Gradient) {
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

TYPED_TEST(ConvLayersTest, GradientInGroups) {
  this->CheckGradient("num_output: 4 kernel_size: 3 pad: 1 group: 2", {2, 4, 3, 4});
  this->CheckGradient("num_output: 3 kernel_size: 3 stride: 2 group: 3", {2, 3, 5, 4});
}

TYPED_TEST(ConvLayersTest, GradientOfSame) {
  this->CheckGradient("num_output: 2 kernel_size: 3 stride: 2 tf_pad: SAME", {2, 2, 6, 5});
  this->CheckGradient("num_output: 2 kernel_size: 5 stride: 2 tf_pad: SAME group: 2", {1, 2, 6, 4}, 2);
  this->CheckGradient("num_output: 2 kernel_size: 2 dilation: 2 tf_pad: SAME", {1, 2, 4, 5});
  this->CheckGradient(
      "num_output: 2 kernel_size: 3 stride: 2 tf_pad: SAME"
      " force_nd_im2col: true",
      {1, 2, 6, 5});
}

TYPED_TEST(ConvLayersTest, GradientOfThreeAxes) {
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> in(vector<int>({1, 2, 2, 4, 3})), out;
  Fill(&in);
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
  ConvolutionLayer<Dtype> layer(Parse("num_output: 2 kernel_size: 2 stride: [1, 2, 1] tf_pad: SAME"));
  GradientChecker<Dtype> checker(1e-2, 1e-3);
  checker.CheckGradientExhaustive(&layer, bottom, top);
}

TYPED_TEST(ConvLayersTest, GradientsAddUp) {
  typedef typename TypeParam::Dtype Dtype;
  // Solvers with iter_size run backward twice before an update.
  Blob<Dtype> in(2, 4, 6, 5), out;
  Fill(&in);
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
  for (shared_ptr<Layer<Dtype>>& layer : this->Layers(Parse("num_output: 4 kernel_size: 3 stride: 2 tf_pad: SAME"))) {
    layer->SetUp(bottom, top);
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

TYPED_TEST(ConvLayersTest, FrozenWeightsAndNoBottomGradient) {
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

TYPED_TEST(ConvLayersTest, DeconvolutionRunsItBackwards) {
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

TYPED_TEST(ConvLayersTest, GradientOfDeconvolution) {
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> in(2, 2, 3, 2), out;
  Fill(&in);
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
  DeconvolutionLayer<Dtype> layer(Parse("num_output: 2 kernel_size: 3 stride: 2 pad: 1"));
  GradientChecker<Dtype> checker(1e-2, 1e-3);
  checker.CheckGradientExhaustive(&layer, bottom, top);
}

TYPED_TEST(ConvLayersTest, BadParametersNameTheLayer) {
  typedef typename TypeParam::Dtype Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const char* const texts[][2] = {
      {"num_output: 2", "layer conv: kernel_size is wanted once"},
      {"num_output: 2 kernel_size: 0", "layer conv: kernel_size is too small"},
      {"num_output: 2 kernel_size: 3 stride: 0", "layer conv: stride is too"},
      {"num_output: 2 kernel_size: 3 dilation: 0", "layer conv: dilation is"},
      {"num_output: 2 kernel_size: [3, 3, 3]", "there 3 times"},
      {"num_output: 2 kernel_size: 3 kernel_h: 3 kernel_w: 3", "not both"},
      {"kernel_size: 3", "layer conv: num_output is missing"},
      {"num_output: 3 kernel_size: 3 group: 2", "num_output 3 does not divide"},
      {"num_output: 3 kernel_size: 3 group: 3", "4 channels do not divide"},
      {"num_output: 2 kernel_size: 7", "kernel of extent 7 does not fit"},
      // What does not fit an int.
      {"num_output: 2 kernel_size: 3 dilation: 2000000000", "kernel of extent 4000000001 does not fit"},
      {"num_output: 2 kernel_size: 3 pad: 2000000000", "padding is too large"},
      {"num_output: 2 kernel_size: 3 dilation: 2000000000 tf_pad: SAME", "kernel is too large"},
  };
  Blob<Dtype> in(2, 4, 6, 5), out;
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
  for (const auto& text : texts) {
    ConvolutionLayer<Dtype> layer(Parse(text[0]));
    EXPECT_DEATH(layer.SetUp(bottom, top), text[1]);
  }
  DeconvolutionLayer<Dtype> layer(Parse("num_output: 2 kernel_size: 3 tf_pad: SAME"));
  EXPECT_DEATH(layer.SetUp(bottom, top), "tf_pad is for Convolution only");
}

TYPED_TEST(ConvLayersTest, InPlaceIsRefused) {
  typedef typename TypeParam::Dtype Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  for (const char* group : {"1", "3"}) {
    Blob<Dtype> in(1, 3, 6, 5);
    vector<Blob<Dtype>*> both(1, &in);
    shared_ptr<Layer<Dtype>> layer =
        LayerRegistry<Dtype>::CreateLayer(Parse(std::string("num_output: 3 kernel_size: 3 pad: 1 group: ") + group));
    EXPECT_DEATH(layer->SetUp(both, both), "layer conv: in place");
  }
}

}  // namespace caffe
