#ifndef CAFFE_UTIL_PLANE_SHAPE_HPP_
#define CAFFE_UTIL_PLANE_SHAPE_HPP_

namespace caffe {

/// Sizes of a convolution over the plane of a channel. For output (y, x) kernel position (i, j) reads the input at
///     (y stride_h - pad_h + i dilation_h, x stride_w - pad_w + j dilation_w),
/// which is 0 outside the plane. The padding after the plane follows from the size of the output.
struct PlaneShape {
  int height, width;          // input plane
  int out_height, out_width;  // output plane
  int kernel_h, kernel_w;
  int stride_h, stride_w;
  int pad_h, pad_w;  // before
  int dilation_h, dilation_w;
};

}  // namespace caffe

#endif  // CAFFE_UTIL_PLANE_SHAPE_HPP_
