// The GPU side of BaseConvolutionLayer: the steps of base_conv_layer.cpp on cuBLAS.
#include <vector>

#include "caffe/layers/base_conv_layer.hpp"
#include "caffe/util/im2col.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::ToColumnsGpu(const Dtype* image) {
  Dtype* columns = col_buffer_.mutable_gpu_data();
  if (planar() && !pads_unevenly()) {
    const PlaneShape& p = plane_;
    im2col_gpu(image, conv_in_channels_, p.height, p.width, p.kernel_h, p.kernel_w, p.pad_h, p.pad_w, p.stride_h,
               p.stride_w, p.dilation_h, p.dilation_w, columns);
  } else {
    // This function is given the size of the output, so it needs only the padding before.
    im2col_nd_gpu(image, num_spatial_axes_, conv_in_channels_ * conv_out_spatial_dim_, conv_input_shape_.gpu_data(),
                  col_buffer_.gpu_shape(), kernel_shape_.gpu_data(), pad_.gpu_data(), stride_.gpu_data(),
                  dilation_.gpu_data(), columns);
  }
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::FromColumnsGpu(Dtype* image) {
  const Dtype* columns = col_buffer_.gpu_data();
  if (planar() && !pads_unevenly()) {
    const PlaneShape& p = plane_;
    col2im_gpu(columns, conv_in_channels_, p.height, p.width, p.kernel_h, p.kernel_w, p.pad_h, p.pad_w, p.stride_h,
               p.stride_w, p.dilation_h, p.dilation_w, image);
  } else {
    col2im_nd_gpu(columns, num_spatial_axes_, reverse_dimensions() ? top_dim_ : bottom_dim_,
                  conv_input_shape_.gpu_data(), col_buffer_.gpu_shape(), kernel_shape_.gpu_data(), pad_.gpu_data(),
                  stride_.gpu_data(), dilation_.gpu_data(), image);
  }
}

template <typename Dtype>
const Dtype* BaseConvolutionLayer<Dtype>::ColumnsGpu(const Dtype* input, const bool fresh) {
  if (is_1x1_) { return input; }
  if (fresh) { ToColumnsGpu(input); }
  return col_buffer_.gpu_data();
}

template <typename Dtype>
const Dtype* BaseConvolutionLayer<Dtype>::OnesGpu() {
  if (ones_.count() != out_spatial_dim_) {
    ones_.Reshape(vector<int>(1, out_spatial_dim_));
    caffe_gpu_set(out_spatial_dim_, Dtype(1), ones_.mutable_gpu_data());
  }
  return ones_.gpu_data();
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::forward_gpu_gemm(const Dtype* input, const Dtype* weights, Dtype* output,
                                                   bool skip_im2col) {
  const Dtype* columns = ColumnsGpu(input, !skip_im2col);
  for (int g = 0; g < group_; ++g) {
    caffe_gpu_gemm<Dtype>(CblasNoTrans, CblasNoTrans, conv_out_channels_ / group_, conv_out_spatial_dim_, kernel_dim_,
                          Dtype(1), weights + weight_offset_ * g, columns + col_offset_ * g, Dtype(0),
                          output + output_offset_ * g);
  }
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::forward_gpu_bias(Dtype* output, const Dtype* bias) {
  caffe_gpu_gemm<Dtype>(CblasNoTrans, CblasNoTrans, num_output_, out_spatial_dim_, 1, Dtype(1), bias, OnesGpu(),
                        Dtype(1), output);
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::backward_gpu_gemm(const Dtype* output, const Dtype* weights, Dtype* input) {
  Dtype* columns = is_1x1_ ? input : col_buffer_.mutable_gpu_data();
  for (int g = 0; g < group_; ++g) {
    caffe_gpu_gemm<Dtype>(CblasTrans, CblasNoTrans, kernel_dim_, conv_out_spatial_dim_, conv_out_channels_ / group_,
                          Dtype(1), weights + weight_offset_ * g, output + output_offset_ * g, Dtype(0),
                          columns + col_offset_ * g);
  }
  if (!is_1x1_) { FromColumnsGpu(input); }
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::weight_gpu_gemm(const Dtype* input, const Dtype* output, Dtype* weights) {
  const Dtype* columns = ColumnsGpu(input, true);
  for (int g = 0; g < group_; ++g) {
    caffe_gpu_gemm<Dtype>(CblasNoTrans, CblasTrans, conv_out_channels_ / group_, kernel_dim_, conv_out_spatial_dim_,
                          Dtype(1), output + output_offset_ * g, columns + col_offset_ * g, Dtype(1),
                          weights + weight_offset_ * g);
  }
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::backward_gpu_bias(Dtype* bias, const Dtype* output) {
  caffe_gpu_gemv<Dtype>(CblasNoTrans, num_output_, out_spatial_dim_, Dtype(1), output, OnesGpu(), Dtype(1), bias);
}

#define INSTANTIATE_BASE_CONVOLUTION_GPU(Dtype)                                                          \
  template void BaseConvolutionLayer<Dtype>::forward_gpu_gemm(const Dtype*, const Dtype*, Dtype*, bool); \
  template void BaseConvolutionLayer<Dtype>::forward_gpu_bias(Dtype*, const Dtype*);                     \
  template void BaseConvolutionLayer<Dtype>::backward_gpu_gemm(const Dtype*, const Dtype*, Dtype*);      \
  template void BaseConvolutionLayer<Dtype>::weight_gpu_gemm(const Dtype*, const Dtype*, Dtype*);        \
  template void BaseConvolutionLayer<Dtype>::backward_gpu_bias(Dtype*, const Dtype*)
INSTANTIATE_BASE_CONVOLUTION_GPU(float);
INSTANTIATE_BASE_CONVOLUTION_GPU(double);

}  // namespace caffe
