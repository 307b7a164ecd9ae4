#ifndef CAFFE_UTIL_BOUNDS_HPP_
#define CAFFE_UTIL_BOUNDS_HPP_

#include <limits>

#include "caffe/util/simd.hpp"

namespace caffe {

/// What a convolution does to its outputs before it stores them: min(max(x, low), high), which keeps a NaN. ReLU is [0,
/// infinity], ReLU6 is [0, 6]; without bounds nothing is done.
template <typename Dtype>
struct Bounds {
  Dtype low = -std::numeric_limits<Dtype>::infinity();
  Dtype high = std::numeric_limits<Dtype>::infinity();

  bool any() const {
    return low > -std::numeric_limits<Dtype>::infinity() || high < std::numeric_limits<Dtype>::infinity();
  }
};

/// The same on a vector: comparisons are false for NaN, which therefore stays.
template <typename T, int Lanes>
inline __attribute__((always_inline)) SimdT<T, Lanes> Within(const Bounds<T>& bounds, const SimdT<T, Lanes> x) {
  const SimdT<T, Lanes> low = SimdSet<T, Lanes>(bounds.low), high = SimdSet<T, Lanes>(bounds.high);
  const SimdT<T, Lanes> above = x < low ? low : x;
  return above > high ? high : above;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_BOUNDS_HPP_
