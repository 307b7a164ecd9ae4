#ifndef CAFFE_UTIL_PLANE_SHAPE_HPP_
#define CAFFE_UTIL_PLANE_SHAPE_HPP_

namespace caffe {

/// How a kernel lies on a channel's plane. Output (y, x) meets input (y stride_h - pad_h + i dilation_h, same of x), 0
/// outside; what is padded after follows from the output's size.
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
