#ifndef CAFFE_UTIL_BOUNDS_SIMD_HPP_
#define CAFFE_UTIL_BOUNDS_SIMD_HPP_

#include "caffe/util/bounds.hpp"
#include "caffe/util/simd.hpp"

namespace caffe {

/// Bounds on a vector. Apart from bounds.hpp because nvcc, which reads that, does not know these vectors: comparisons
/// are false for NaN, which therefore stays.
template <typename T, int Lanes>
inline __attribute__((always_inline)) SimdT<T, Lanes> Within(const Bounds<T>& bounds, const SimdT<T, Lanes> x) {
  const SimdT<T, Lanes> low = SimdSet<T, Lanes>(bounds.low), high = SimdSet<T, Lanes>(bounds.high);
  const SimdT<T, Lanes> above = x < low ? low : x;
  return above > high ? high : above;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_BOUNDS_SIMD_HPP_
