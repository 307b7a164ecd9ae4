#ifndef CAFFE_DEPTHWISE_CONV_LAYER_HPP_
#define CAFFE_DEPTHWISE_CONV_LAYER_HPP_

#include <vector>

#include "caffe/layers/conv_layer.hpp"
#include "caffe/util/depthwise.hpp"

namespace caffe {

/**
 * @brief Convolution of each channel with a kernel of its own.
 *
 *     top(n, c, y, x) = bias(c) + sum over i, j of
 *         weights(c, 0, i, j) bottom(n, c, y stride_h - pad_h + i dilation_h, x stride_w - pad_w + j dilation_w)
 *     bottom is 0 outside
 *
 *     bottom N x C x H x W, weights C x 1 x KH x KW, bias C, top N x C x P x Q
 *
 * Types "DepthwiseConvolution" and "ConvolutionDepthwise" (the two names in public nets), and "Convolution" with
 * group == num_output and engine DEFAULT. convolution_param as ConvolutionLayer reads it, tf_pad included; under the
 * first two names group may be left out (it is the number of channels). Weights and bias have the shapes that the
 * grouped Convolution gives them, so caffemodels move freely between the two.
 *
 * Where the bottom has more channels than group, or not two spatial axes, the layer computes as ConvolutionLayer does;
 * under its own two names it requires one kernel a channel.
 *
 * On the CPU a thread computes the plane of a channel, on the GPU a few outputs of a column: see util/depthwise.cpp and
 * layers/depthwise_conv_layer.cu. Neither builds columns.
 *
 * Source: Howard et al., MobileNets (2017), section 3.1, for the operation.
 */
template <typename Dtype>
class DepthwiseConvolutionLayer : public ConvolutionLayer<Dtype> {
 public:
  explicit DepthwiseConvolutionLayer(const LayerParameter& param) : ConvolutionLayer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  /// The type that the prototxt has: "Convolution" stays "Convolution".
  virtual inline const char* type() const { return this->layer_param_.type().c_str(); }

 protected:
  virtual bool depthwise() const { return is_depthwise_; }
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);

  /// One kernel a channel, on two spatial axes.
  bool is_depthwise_;
  DepthwiseShape shape_;
  /// GPU: partial sums, each over a share of the outputs, for the gradients of weights and bias.
  Blob<Dtype> weight_parts_;
};

}  // namespace caffe

#endif  // CAFFE_DEPTHWISE_CONV_LAYER_HPP_
