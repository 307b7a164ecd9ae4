#include "caffe/layers/sigmoid_layer.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "caffe/util/pointwise.hpp"

// Sigmoid on the CPU: the class and its GPU code are the fork's.
namespace caffe {

namespace {

inline float PowerOf2(const int32_t n) {
  const int32_t bits = (n + 127) << 23;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline double Exp(const double x) { return std::exp(x); }

/// exp(x) for x <= 0, within 1 unit in the last place; without branches, so that
/// loops over it are vectorised.
///
///     exp(x) = 2^n exp(r),  n = round(x / ln 2),  r = x - n ln 2
///
/// |r| <= 0.35, where the error of Taylor's series to r^7 is 0.1 units at most.
inline float Exp(const float x) {
  const float least = -104;                  // exp of it rounds to 0
  const float some = x < least ? least : x;  // keeps NaN
  const float n = std::rint(some * 1.44269504f);
  // ln 2 in two parts: the first has so few bits that n times it is exact.
  const float r = (some - n * 0.693359375f) + n * 2.12194440e-4f;
  float sum = 1.f / 5040;
  sum = sum * r + 1.f / 720;
  sum = sum * r + 1.f / 120;
  sum = sum * r + 1.f / 24;
  sum = sum * r + 1.f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1;
  sum = sum * r + 1;
  // 2^n as the product of two powers, as n may be less than the least
  // exponent: then the result is denormal.
  const int32_t power = static_cast<int32_t>(n);
  const int32_t half = power / 2;
  return sum * PowerOf2(half) * PowerOf2(power - half);
}

/// y = 1 / (1 + exp(-x)), from exp(-|x|) so that nothing overflows and small
/// results keep their digits.
template <typename Dtype>
struct SigmoidOp {
  Dtype Value(const Dtype x) const {
    const Dtype small = Exp(x < 0 ? x : -x);
    return (x < 0 ? small : Dtype(1)) / (1 + small);
  }
};

/// dy/dx = y (1 - y), computed from y.
template <typename Dtype>
struct SigmoidFromTopOp {
  Dtype Slope(const Dtype y) const { return y * (1 - y); }
};

}  // namespace

template <typename Dtype>
void SigmoidLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  PointwiseForward(bottom[0]->count(), bottom[0]->cpu_data(), top[0]->mutable_cpu_data(), SigmoidOp<Dtype>());
}

template <typename Dtype>
void SigmoidLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                       const vector<Blob<Dtype>*>& bottom) {
  if (propagate_down[0]) {
    PointwiseBackward(bottom[0]->count(), top[0]->cpu_data(), top[0]->cpu_diff(), bottom[0]->mutable_cpu_diff(),
                      SigmoidFromTopOp<Dtype>());
  }
}

#ifdef CPU_ONLY
STUB_GPU(SigmoidLayer);
#endif

INSTANTIATE_CLASS(SigmoidLayer);

}  // namespace caffe
