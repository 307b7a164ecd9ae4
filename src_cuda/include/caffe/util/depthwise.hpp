#ifndef CAFFE_UTIL_DEPTHWISE_HPP_
#define CAFFE_UTIL_DEPTHWISE_HPP_

#include "caffe/util/plane_shape.hpp"

namespace caffe {

using DepthwiseShape = PlaneShape;

/// output = the convolution of each plane of input with the kernel of its channel. Input and output are num * channels
/// planes, one after another. bias may be null.
template <typename Dtype>
void DepthwiseForward(const DepthwiseShape& shape, int num, int channels, const Dtype* input, const Dtype* weights,
                      const Dtype* bias, Dtype* output);

/// input_diff = the gradient of the input, from that of the output.
template <typename Dtype>
void DepthwiseBackwardData(const DepthwiseShape& shape, int num, int channels, const Dtype* output_diff,
                           const Dtype* weights, Dtype* input_diff);

/// weight_diff += the gradient of the weights, bias_diff += that of the bias; either may be null.
template <typename Dtype>
void DepthwiseBackwardWeights(const DepthwiseShape& shape, int num, int channels, const Dtype* input,
                              const Dtype* output_diff, Dtype* weight_diff, Dtype* bias_diff);

}  // namespace caffe

#endif  // CAFFE_UTIL_DEPTHWISE_HPP_
