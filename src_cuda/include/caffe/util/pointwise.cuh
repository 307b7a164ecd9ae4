#ifndef CAFFE_UTIL_POINTWISE_CUH_
#define CAFFE_UTIL_POINTWISE_CUH_

#include "caffe/common.hpp"
#include "caffe/util/pointwise.hpp"

namespace caffe {

/// Blocks that have a thread for each of n > 0 values. CAFFE_GET_BLOCKS and the
/// step of CUDA_KERNEL_LOOP overflow an int when n is near 2^31 and 2^30.
inline int BlocksFor(const int n) { return (n - 1) / CAFFE_CUDA_NUM_THREADS + 1; }

template <typename Dtype, typename Op>
__global__ void PointwiseForwardKernel(const int n, const Dtype* x, Dtype* y, const Op op) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) { y[i] = op.Value(x[i]); }
}

template <typename Dtype, typename Op>
__global__ void PointwiseBackwardKernel(const int n, const Dtype* x, const Dtype* dy, Dtype* dx, const Op op) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) { dx[i] = dy[i] * op.Slope(x[i]); }
}

/// y[i] = op.Value(x[i]) on the GPU; y may be x.
template <typename Dtype, typename Op>
inline void PointwiseForwardGpu(const int n, const Dtype* x, Dtype* y, const Op op) {
  if (n == 0) {
    return;  // a launch of no blocks is an error
  }
  PointwiseForwardKernel<Dtype, Op><<<BlocksFor(n), CAFFE_CUDA_NUM_THREADS>>>(n, x, y, op);
  CUDA_POST_KERNEL_CHECK;
}

/// dx[i] = dy[i] * op.Slope(x[i]) on the GPU; dx may be dy.
template <typename Dtype, typename Op>
inline void PointwiseBackwardGpu(const int n, const Dtype* x, const Dtype* dy, Dtype* dx, const Op op) {
  if (n == 0) { return; }
  PointwiseBackwardKernel<Dtype, Op><<<BlocksFor(n), CAFFE_CUDA_NUM_THREADS>>>(n, x, dy, dx, op);
  CUDA_POST_KERNEL_CHECK;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_POINTWISE_CUH_
