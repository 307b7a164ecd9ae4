#ifndef CAFFE_UTIL_CONV_ROWS_HPP_
#define CAFFE_UTIL_CONV_ROWS_HPP_

#include "caffe/util/bounds.hpp"
#include "caffe/util/plane_shape.hpp"

/**
 * Three convolutions in a row, a stretch of rows at a time: an expansion or a first layer, a depthwise convolution, a
 * projection.
 *
 * The maps between them are the largest of a net. Computed one after another, each is written to memory and read back
 * from it. Here a thread computes the rows of the first map that some rows of the second one need, then these, then
 * their part of the third, all of which stays in the second-level cache. The maps are copied to their blobs past the
 * caches, since nothing reads them soon. The values are those of the layers one by one.
 */
namespace caffe {

/// A convolution over two spatial axes.
template <typename Dtype>
struct ConvOfRows {
  /// 1x1; wide rows of few channels (DirectConvForward); one kernel a channel; another one, of which rows cannot be
  /// computed alone.
  enum Kind { kPointwise, kDirect, kDepthwise, kOther };
  Kind kind;
  PlaneShape shape;
  int channels, outputs;
  const Dtype* weights;
  const Dtype* bias;  // may be null
  Bounds<Dtype> bounds;
};

/// Whether ForwardInRows computes them, and faster: the first map does not stay in the caches.
template <typename Dtype>
bool RowsWin(const ConvOfRows<Dtype>& first, const ConvOfRows<Dtype>& depthwise, const ConvOfRows<Dtype>& last);

/// The outputs of the three for one image; each is the input of the next.
template <typename Dtype>
void ForwardInRows(const ConvOfRows<Dtype>& first, const ConvOfRows<Dtype>& depthwise, const ConvOfRows<Dtype>& last,
                   const Dtype* input, Dtype* first_output, Dtype* depthwise_output, Dtype* last_output);

}  // namespace caffe

#endif  // CAFFE_UTIL_CONV_ROWS_HPP_
