#ifndef CAFFE_UTIL_DEPTHWISE_HPP_
#define CAFFE_UTIL_DEPTHWISE_HPP_

#include <cstddef>

#include "caffe/util/bounds.hpp"
#include "caffe/util/plane_shape.hpp"

namespace caffe {

using DepthwiseShape = PlaneShape;

/// output = the convolution of each plane of input with the kernel of its channel. Input and output are num * channels
/// planes, one after another. bias may be null. The outputs are kept within the bounds.
template <typename Dtype>
void DepthwiseForward(const DepthwiseShape& shape, int num, int channels, const Dtype* input, const Dtype* weights,
                      const Dtype* bias, Dtype* output, const Bounds<Dtype>& bounds = Bounds<Dtype>());

/// The same for one image, on the calling thread; planes of input and output are in_plane and out_plane values apart.
/// With a shape of fewer rows it computes some rows of larger planes.
template <typename Dtype>
void DepthwiseRows(const DepthwiseShape& shape, int channels, const Dtype* input, size_t in_plane, const Dtype* weights,
                   const Dtype* bias, const Bounds<Dtype>& bounds, size_t out_plane, Dtype* output);

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
