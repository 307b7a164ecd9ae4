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

// In place x and y are one array, else they do not overlap: either way each
// pass of a loop stands alone, which the compiler cannot see. Without this
// word it falls back to the scalar loop whenever x == y.
#if defined(__CUDACC__)
#define CAFFE_INDEPENDENT_PASSES  // its loops on the CPU are never called
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

/// The larger and the smaller, NaN kept when it comes as x: a NaN in a net
/// must reach its outputs. std::max and fmaxf differ there on CPU and GPU.
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
