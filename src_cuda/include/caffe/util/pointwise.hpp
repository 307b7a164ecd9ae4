#ifndef CAFFE_UTIL_POINTWISE_HPP_
#define CAFFE_UTIL_POINTWISE_HPP_

#include "caffe/util/parallel.hpp"

/**
 * Layers whose every output depends on the one input of the same index.
 *
 * A layer gives its formula once, as a small struct (an Op) that both CPU and
 * GPU run:
 *
 *     Dtype Value(Dtype x) const;  // y
 *     Dtype Slope(Dtype x) const;  // dy/dx
 *
 * and calls PointwiseForward, PointwiseBackward (CPU) or the same functions
 * of pointwise.cuh (GPU).
 */
#ifdef __CUDACC__
#define CAFFE_HOST_DEVICE __host__ __device__
#else
#define CAFFE_HOST_DEVICE
#endif

// x and y are the same array or do not overlap, so the iterations of a loop are independent. The compiler cannot see
// that: without this pragma it takes the scalar loop whenever x == y.
#if defined(__CUDACC__)
#define CAFFE_INDEPENDENT_PASSES  // nvcc's copies of the loops on the CPU are never called
#elif defined(__clang__)
#define CAFFE_INDEPENDENT_PASSES _Pragma("clang loop vectorize(assume_safety)")
#else
#define CAFFE_INDEPENDENT_PASSES _Pragma("GCC ivdep")
#endif

namespace caffe {

/// Elements that one thread takes at a time: some 10 microseconds of work.
const int kPointwiseGrain = 1 << 15;

/// y[i] = op.Value(x[i]); y may be x.
template <typename Dtype, typename Op>
inline void PointwiseForward(const int n, const Dtype* x, Dtype* y, const Op op) {
  ParallelFor(n, kPointwiseGrain, [=](const int begin, const int end) {
    CAFFE_INDEPENDENT_PASSES
    for (int i = begin; i < end; ++i) { y[i] = op.Value(x[i]); }
  });
}

/// dx[i] = dy[i] * op.Slope(x[i]); dx may be dy.
template <typename Dtype, typename Op>
inline void PointwiseBackward(const int n, const Dtype* x, const Dtype* dy, Dtype* dx, const Op op) {
  ParallelFor(n, kPointwiseGrain, [=](const int begin, const int end) {
    CAFFE_INDEPENDENT_PASSES
    for (int i = begin; i < end; ++i) { dx[i] = dy[i] * op.Slope(x[i]); }
  });
}

/// max(x, low) and min(x, high) that keep a NaN in x: a NaN in a net must reach its outputs. std::max and fmaxf treat
/// it differently on CPU and GPU.
template <typename Dtype>
CAFFE_HOST_DEVICE inline Dtype AtLeast(const Dtype x, const Dtype low) {
  return x < low ? low : x;
}
template <typename Dtype>
CAFFE_HOST_DEVICE inline Dtype AtMost(const Dtype x, const Dtype high) {
  return x > high ? high : x;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_POINTWISE_HPP_
