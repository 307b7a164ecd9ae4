#ifndef CAFFE_UTIL_POINTWISE_CONV_HPP_
#define CAFFE_UTIL_POINTWISE_CONV_HPP_

#include <cstddef>

namespace caffe {

/// A 1x1 convolution of stride 1 without padding, whose images are matrices of channels x places.
struct PointwiseShape {
  int num, in, out, places;
};

// On the GPU each pass is one batched product by cuBLAS. cuDNN computes the same, but its functions for convolutions
// prepare the computation anew in each call: some 0.2 ms of the host's time (measured with cuDNN 9 on an H100), where a
// product of a MobileNet's later layers takes 0.02 ms.

/// y = w x + bias for each image; `bias` may be null. With `tf32` tensor cores may round floats to 10 bits of mantissa.
template <typename Dtype>
void PointwiseForwardGpu(const PointwiseShape& shape, const Dtype* x, const Dtype* w, const Dtype* bias, bool tf32,
                         Dtype* y);

/// dx = w^T dy for each image.
template <typename Dtype>
void PointwiseDataGpu(const PointwiseShape& shape, const Dtype* dy, const Dtype* w, bool tf32, Dtype* dx);

/// Bytes of `room` for the gradient of the weights, and for that of the bias.
template <typename Dtype>
size_t PointwiseWeightsRoom(const PointwiseShape& shape);
template <typename Dtype>
size_t PointwiseBiasRoom(const PointwiseShape& shape);

/// Whether one product for each image keeps a GPU busy; where it does not, cuDNN divides the places as well.
bool PointwiseWeightsFill(const PointwiseShape& shape);

/// dw += sum over the images of dy x^T, added in a fixed order.
template <typename Dtype>
void PointwiseWeightsGpu(const PointwiseShape& shape, const Dtype* dy, const Dtype* x, bool tf32, Dtype* room,
                         Dtype* dw);

/// dbias += sum of dy over images and places.
template <typename Dtype>
void PointwiseBiasGpu(const PointwiseShape& shape, const Dtype* dy, Dtype* room, Dtype* dbias);

}  // namespace caffe

#endif  // CAFFE_UTIL_POINTWISE_CONV_HPP_
