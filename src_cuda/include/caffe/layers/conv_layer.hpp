#ifndef CAFFE_CONV_LAYER_HPP_
#define CAFFE_CONV_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/base_conv_layer.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief Convolution as a matrix product (engine CAFFE).
 *
 *     top(n, o, p) = bias(o) +
 *         sum over c, k of weights(o, c, k)
 *                          bottom(n, g C/group + c, p stride - pad + k dilation)
 *     g = o / (num_output / group); bottom is 0 outside
 *
 * Any number of bottoms N x C x I1 x .. x In of one shape, and as many tops
 * N x num_output x P1 x .. x Pn, with
 *
 *     P = (I + before + after - ((K - 1) dilation + 1)) / stride + 1, rounded down
 *
 * convolution_param, each spatial field once or once an axis:
 *  - num_output; kernel_size, or kernel_h and kernel_w;
 *  - stride (default 1), or stride_h and stride_w;
 *  - dilation (default 1);
 *  - pad (default 0), or pad_h and pad_w: before = after = pad;
 *  - tf_pad, in place of pad, which is then not read. VALID: no padding. SAME:
 *    P = I / stride, rounded up, and with
 *
 *        total = max((P - 1) stride + (K - 1) dilation + 1 - I, 0)
 *        before = total / 2, rounded down; after = total - before
 *
 *  - group (default 1) divides C and num_output;
 *  - bias_term (default true), weight_filler, bias_filler;
 *  - axis (default 1), the channels' axis: all before it counts as N;
 *  - engine: CAFFE is this class. CUDNN is CuDNNConvolutionLayer. DEFAULT
 *    takes DepthwiseConvolutionLayer where group == C == num_output on two
 *    spatial axes, else cuDNN where it is built in, else this class.
 *
 * Source: TensorFlow's GetWindowedOutputSizeVerbose (framework/common_shape_fns)
 * for SAME; the tf_pad field of the ReLU6 fork of Caffe SSD.
 */
template <typename Dtype>
class ConvolutionLayer : public BaseConvolutionLayer<Dtype> {
 public:
  explicit ConvolutionLayer(const LayerParameter& param) : BaseConvolutionLayer<Dtype>(param) {}

  virtual inline const char* type() const { return "Convolution"; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);
  virtual inline bool reverse_dimensions() { return false; }
  virtual void compute_output_shape();
};

}  // namespace caffe

#endif  // CAFFE_CONV_LAYER_HPP_
