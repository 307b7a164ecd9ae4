#ifndef CAFFE_UTIL_TRANSFORM_RNG_HPP_
#define CAFFE_UTIL_TRANSFORM_RNG_HPP_

#include <cstdint>

namespace caffe {

/**
 * @brief Random numbers for the transformation of one image.
 *
 * Every image has its own stream, selected by (seed, index). Its random values depend neither on the thread that
 * transforms it nor on the images before it. SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
 * generators", 2014): a counter that steps by the golden ratio, and a mixing function.
 */
class TransformRng {
 public:
  explicit TransformRng(uint64_t seed = 0, uint64_t index = 0) : state_(Mix(seed) ^ Mix(~index)) {}

  uint64_t Next() {
    state_ += 0x9E3779B97F4A7C15ull;
    return Mix(state_);
  }

  // Uniform in [lower, upper], in steps of (upper - lower) / 2^53; lower where the interval is empty.
  double Uniform(double lower, double upper) {
    const double unit = static_cast<double>(Next() >> 11) / static_cast<double>((1ull << 53) - 1);
    return upper > lower ? lower + (upper - lower) * unit : lower;
  }

  // True with the given probability: never at 0, always at 1.
  bool Happens(double probability) {
    return static_cast<double>(Next() >> 11) < probability * static_cast<double>(1ull << 53);
  }

  // Uniform in {0, ..., count - 1}; the bias is below count / 2^64.
  int Index(int count) { return static_cast<int>(Next() % static_cast<uint64_t>(count)); }

 private:
  static uint64_t Mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
  }

  uint64_t state_;
};

}  // namespace caffe

#endif  // CAFFE_UTIL_TRANSFORM_RNG_HPP_
