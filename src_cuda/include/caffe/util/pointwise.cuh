#ifndef CAFFE_UTIL_POINTWISE_CUH_
#define CAFFE_UTIL_POINTWISE_CUH_

#include "caffe/common.hpp"
#include "caffe/util/pointwise.hpp"

namespace caffe {

template <typename Dtype, typename Op>
__global__ void PointwiseForwardKernel(const int n, const Dtype* x, Dtype* y,
                                       const Op op) {
  CUDA_KERNEL_LOOP(i, n) {
    y[i] = op.value(x[i]);
  }
}

template <typename Dtype, typename Op>
__global__ void PointwiseBackwardKernel(const int n, const Dtype* x,
                                        const Dtype* dy, Dtype* dx,
                                        const Op op) {
  CUDA_KERNEL_LOOP(i, n) {
    dx[i] = dy[i] * op.slope(x[i]);
  }
}

/// y[i] = op.value(x[i]) on the GPU; y may be x.
template <typename Dtype, typename Op>
inline void PointwiseForwardGpu(const int n, const Dtype* x, Dtype* y,
                                const Op op) {
  if (n == 0) return;  // a launch of no blocks is an error
  PointwiseForwardKernel<Dtype, Op>
      <<<CAFFE_GET_BLOCKS(n), CAFFE_CUDA_NUM_THREADS>>>(n, x, y, op);
  CUDA_POST_KERNEL_CHECK;
}

/// dx[i] = dy[i] * op.slope(x[i]) on the GPU; dx may be dy.
template <typename Dtype, typename Op>
inline void PointwiseBackwardGpu(const int n, const Dtype* x, const Dtype* dy,
                                 Dtype* dx, const Op op) {
  if (n == 0) return;
  PointwiseBackwardKernel<Dtype, Op>
      <<<CAFFE_GET_BLOCKS(n), CAFFE_CUDA_NUM_THREADS>>>(n, x, dy, dx, op);
  CUDA_POST_KERNEL_CHECK;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_POINTWISE_CUH_
