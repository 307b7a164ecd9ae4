#ifndef CAFFE_UTIL_DEPTHWISE_HPP_
#define CAFFE_UTIL_DEPTHWISE_HPP_

namespace caffe {

/// One channel's plane and its kernel. Output (y, x) meets input (y stride_h - pad_h + i dilation_h, same of x), 0
/// outside; what is padded after follows from the output's size.
struct DepthwiseShape {
  int height, width;          // input plane
  int out_height, out_width;  // output plane
  int kernel_h, kernel_w;
  int stride_h, stride_w;
  int pad_h, pad_w;  // before
  int dilation_h, dilation_w;
};

/// output = kernels over input; planes num * channels one after the other. bias may be null.
template <typename Dtype>
void depthwise_forward(const DepthwiseShape& shape, int num, int channels, const Dtype* input, const Dtype* weights,
                       const Dtype* bias, Dtype* output);

/// input_diff = the gradient of the input, from that of the output.
template <typename Dtype>
void depthwise_backward_data(const DepthwiseShape& shape, int num, int channels, const Dtype* output_diff,
                             const Dtype* weights, Dtype* input_diff);

/// weight_diff += the gradient of the weights, bias_diff += that of the bias; either may be null.
template <typename Dtype>
void depthwise_backward_weights(const DepthwiseShape& shape, int num, int channels, const Dtype* input,
                                const Dtype* output_diff, Dtype* weight_diff, Dtype* bias_diff);

}  // namespace caffe

#endif  // CAFFE_UTIL_DEPTHWISE_HPP_
