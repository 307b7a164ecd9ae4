#ifndef CAFFE_UTIL_SIMD_HPP_
#define CAFFE_UTIL_SIMD_HPP_

#include <cstring>

/**
 * Vectors of the compiler (GCC's and Clang's vector extension), so that one source serves every processor: -march
 * decides how wide they are and which instructions are used.
 */
namespace caffe {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

/// `Lanes` values of T.
template <typename T, int Lanes>
struct Simd {
  typedef T type __attribute__((vector_size(Lanes * sizeof(T))));
};

template <typename T, int Lanes>
using SimdT = typename Simd<T, Lanes>::type;

/// Lanes of the widest vector.
template <typename T>
constexpr int SimdLanes() {
  return kVectorBytes / static_cast<int>(sizeof(T));
}

template <typename T, int Lanes>
inline __attribute__((always_inline)) SimdT<T, Lanes> SimdLoad(const T* from) {
  SimdT<T, Lanes> value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

template <typename T, int Lanes>
inline __attribute__((always_inline)) void SimdStore(const SimdT<T, Lanes> value, T* to) {
  std::memcpy(to, &value, sizeof(value));
}

/// The same value, in a register: where it is used several times, GCC would read it from memory each time.
template <typename V>
inline __attribute__((always_inline)) V InRegister(V value) {
#if defined(__x86_64__)
  asm("" : "+v"(value));
#elif defined(__aarch64__)
  asm("" : "+w"(value));
#endif
  return value;
}

/// A pointer in a register: GCC would keep the offsets from it in registers that are needed for values.
template <typename T>
inline __attribute__((always_inline)) const T* InRegister(const T* pointer) {
  asm("" : "+r"(pointer));
  return pointer;
}

/// The first `count` lanes, 0 <= count <= Lanes.
template <typename T, int Lanes>
inline __attribute__((always_inline)) void SimdStoreSome(const SimdT<T, Lanes> value, T* to, const int count) {
  T lanes[Lanes];
  std::memcpy(lanes, &value, sizeof(value));
  std::memcpy(to, lanes, count * sizeof(T));
}

/// All lanes x.
template <typename T, int Lanes>
inline __attribute__((always_inline)) SimdT<T, Lanes> SimdSet(const T x) {
  return x - SimdT<T, Lanes>{};  // x - 0 is x for every x, also for -0
}

/// Sum of the lanes: halves are added until one is left.
template <typename T, int Lanes>
struct SimdLaneSum {
  static inline __attribute__((always_inline)) T Of(const SimdT<T, Lanes> value) {
    SimdT<T, Lanes / 2> half[2];
    std::memcpy(half, &value, sizeof(value));
    return SimdLaneSum<T, Lanes / 2>::Of(half[0] + half[1]);
  }
};

template <typename T>
struct SimdLaneSum<T, 2> {
  static inline __attribute__((always_inline)) T Of(const SimdT<T, 2> value) { return value[0] + value[1]; }
};

template <typename T, int Lanes>
inline __attribute__((always_inline)) T SimdSum(const SimdT<T, Lanes> value) {
  return SimdLaneSum<T, Lanes>::Of(value);
}

/// Transposes a block of 4 x 4 values: to[k * step + j] = from[j * stride + k], j of 4, k of 4.
inline void SimdTranspose(const float* from, const size_t stride, float* to, const size_t step) {
  typedef SimdT<float, 4> V;
  const V a = SimdLoad<float, 4>(from), b = SimdLoad<float, 4>(from + stride);
  const V c = SimdLoad<float, 4>(from + 2 * stride), d = SimdLoad<float, 4>(from + 3 * stride);
  const V ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const V cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  SimdStore<float, 4>(__builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5), to);
  SimdStore<float, 4>(__builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7), to + step);
  SimdStore<float, 4>(__builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5), to + 2 * step);
  SimdStore<float, 4>(__builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7), to + 3 * step);
}

inline void SimdTranspose(const double* from, const size_t stride, double* to, const size_t step) {
  for (int j = 0; j < 4; ++j) {
    for (int k = 0; k < 4; ++k) { to[k * step + j] = from[j * stride + k]; }
  }
}

/// Sum of `count` values: each lane in T, then the lanes in double.
template <typename T>
inline double SimdTotal(const T* values, const int count) {
  constexpr int lanes = SimdLanes<T>();
  SimdT<T, lanes> sum = {};
  int i = 0;
  for (; i + lanes <= count; i += lanes) { sum += SimdLoad<T, lanes>(values + i); }
  double total = SimdSum<T, lanes>(sum);
  for (; i < count; ++i) { total += values[i]; }
  return total;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_SIMD_HPP_
