// What the tests of the convolution share: settings, the convolution by plain loops, and the fixture.
#ifndef SSDLITE_CAFFE_TEST_CONV_LAYERS_TEST_HPP_
#define SSDLITE_CAFFE_TEST_CONV_LAYERS_TEST_HPP_

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/conv_layer.hpp"
#ifdef USE_CUDNN
#include "caffe/layers/cudnn_conv_layer.hpp"
#endif
#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/util/parallel.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace caffe {

inline LayerParameter Parse(const std::string& text) {
  LayerParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(
      "name: 'conv' type: 'Convolution' convolution_param { " + text +
          " weight_filler { type: 'gaussian' } bias_filler { type: 'gaussian' }"
          " }",
      &param))
      << text;
  return param;
}

/// The settings of a convolution over two axes.
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

/// The padding before the input, as TensorFlow describes SAME (tf.nn, "padding"): where the stride divides the
/// input, max(extent - stride, 0) in all, else max(extent - in % stride, 0);
/// the smaller half goes before.
inline int SameBefore(int in, int extent, int stride) {
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

template <typename TypeParam>
class ConvLayersTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;

  ConvLayersTest() { Caffe::set_random_seed(1701); }

  /// Every class that can run it in this mode; last the one that a net would get.
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

}  // namespace caffe

#endif  // SSDLITE_CAFFE_TEST_CONV_LAYERS_TEST_HPP_
