#ifndef CAFFE_UTIL_BAND_HPP_
#define CAFFE_UTIL_BAND_HPP_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "caffe/util/simd.hpp"

/**
 * Rows of a plane in the layout that the kernels read. Padding is stored as zeros, and for stride s the columns are
 * sorted into s phases (phase p holds the columns p, p + s, ..), so that the inputs of neighbouring outputs are
 * adjacent for every stride.
 */
namespace caffe {

inline int DivideUp(const int a, const int b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }
inline int DivideDown(const int a, const int b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }
inline int Clamp(const int x, const int low, const int high) { return std::max(low, std::min(x, high)); }

/// Every second one of the 2 Lanes values at `from`, beginning with number First.
template <typename T, int Lanes, int First, int... I>
inline SimdT<T, Lanes> EverySecond(const T* from, std::integer_sequence<int, I...>) {
  const SimdT<T, Lanes> a = SimdLoad<T, Lanes>(from), b = SimdLoad<T, Lanes>(from + Lanes);
  return __builtin_shufflevector(a, b, (2 * I + First)...);
}

/// A plane, and the rows of it that a band holds.
struct Band {
  int height, width;  // plane
  int pad;            // columns of padding before the plane; negative: so many columns of the plane are skipped
  int stride;         // number of phases
  int length;         // values in one phase of a row

  /// Number of values to allocate for `rows` rows; storing whole vectors reaches past the end of the last one.
  template <typename T>
  size_t Size(const int rows) const {
    return static_cast<size_t>(rows) * stride * length + 2 * SimdLanes<T>();
  }

  /// Copies `rows` rows from number `first` on. after: how many values follow the plane in its array; they may be read
  /// but are not used.
  template <typename T>
  void Fill(const T* plane, const int64_t after, const int first, const int rows, T* band) const {
    for (int r = 0; r < rows; ++r, band += static_cast<size_t>(stride) * length) {
      const int y = first + r;
      if (y < 0 || y >= height) {
        Zeros(band, stride * length);
        continue;
      }
      const T* row = plane + static_cast<size_t>(y) * width;
      const bool room = static_cast<int64_t>(height - 1 - y) * width + after >= 2 * SimdLanes<T>();
      if (!room || pad < 0 || stride > 2) {
        AnyRow(row, band);
      } else if (stride == 1) {
        Phase<1, 0>(row, pad, width, band);
      } else if (pad % 2 == 0) {
        Phase<2, 0>(row, pad / 2, (width + 1) / 2, band);
        Phase<2, 1>(row, pad / 2, width / 2, band + length);
      } else {
        Phase<2, 1>(row, (pad + 1) / 2, width / 2, band);
        Phase<2, 0>(row, pad / 2, (width + 1) / 2, band + length);
      }
    }
  }

 private:
  // Phases are stored from left to right in whole vectors; what is written past the end of one is overwritten by the
  // next.

  template <typename T>
  static void Zeros(T* to, const int count) {
    constexpr int lanes = SimdLanes<T>();
    for (int i = 0; i < count; i += lanes) { SimdStore<T, lanes>(SimdT<T, lanes>{}, to + i); }
  }

  /// `before` zeros, then the columns First, First + Step, .. of the row, `columns` of them at most, then zeros.
  template <int Step, int First, typename T>
  void Phase(const T* row, const int before, const int columns, T* to) const {
    constexpr int lanes = SimdLanes<T>();
    const int count = std::max(0, std::min(columns, length - before));
    Zeros(to, before);
    T* at = to + before;
    for (int x = 0; x < count; x += lanes) {
      if (Step == 1) {
        SimdStore<T, lanes>(SimdLoad<T, lanes>(row + x), at + x);
      } else {
        SimdStore<T, lanes>(EverySecond<T, lanes, First>(row + 2 * x, std::make_integer_sequence<int, lanes>()),
                            at + x);
      }
    }
    Zeros(at + count, length - before - count);
  }

  template <typename T>
  void AnyRow(const T* row, T* to) const {
    for (int p = 0; p < stride; ++p, to += length) {
      // to[q] is column q stride + p - pad.
      const int begin = Clamp(DivideUp(pad - p, stride), 0, length);
      const int end = Clamp(DivideDown(width - 1 + pad - p, stride) + 1, begin, length);
      std::fill(to, to + begin, T(0));
      for (int q = begin; q < end; ++q) { to[q] = row[q * stride + p - pad]; }
      std::fill(to + end, to + length, T(0));
    }
  }
};

}  // namespace caffe

#endif  // CAFFE_UTIL_BAND_HPP_
