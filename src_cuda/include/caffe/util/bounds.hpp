#ifndef CAFFE_UTIL_BOUNDS_HPP_
#define CAFFE_UTIL_BOUNDS_HPP_

#include <limits>

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

}  // namespace caffe

#endif  // CAFFE_UTIL_BOUNDS_HPP_
