#ifndef CAFFE_UTIL_BLOCK_TILES_HPP_
#define CAFFE_UTIL_BLOCK_TILES_HPP_

#include <cstddef>
#include <vector>

#include "caffe/util/block_conv.hpp"
#include "caffe/util/bounds_simd.hpp"
#include "caffe/util/channel_blocks.hpp"
#include "caffe/util/packed_weights.hpp"
#include "caffe/util/simd.hpp"

/// What block_conv.cpp and block_depthwise.cpp share.
namespace caffe {

/// What becomes of the sums of a tile. T is the type of the values.
template <typename T>
struct BlockEnd {
  Bounds<T> bounds;
  bool bounded, swish;
  T shift, factor;
  const T* add = nullptr;      // what is added to the sums, placed like the results
  const T* results = nullptr;  // the first of them, if something is added

  explicit BlockEnd(const AfterConv<T>& after)
      : bounds(after.bounds),
        bounded(after.bounds.any() && !after.swish),
        swish(after.swish),
        shift(after.shift),
        factor(after.factor) {}

  /// Stores P x Wide vectors: vector (p, v) goes to place v * block + p * lanes of `to`.
  template <int P, int Wide>
  inline __attribute__((always_inline)) void Store(const SimdT<T, SimdLanes<T>()> (&sum)[P][Wide], const size_t block,
                                                   T* to) const {
    constexpr int L = SimdLanes<T>();
    typedef SimdT<T, L> V;
    const auto each = [&](const auto& store) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int v = 0; v < Wide; ++v) {
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) { store(sum[p][v], v * block + p * L); }
      }
    };
    if (swish) {
      const Bounds<T> own = bounds;  // copies, which what is stored does not overlap
      const T own_shift = shift, own_factor = factor;
      each([&](const V x, const size_t place) __attribute__((always_inline)) {
        const V ramp = Within<T, L>(own, x + own_shift);
        SimdStore<T, L>(x * ramp * own_factor, to + place);
      });
    } else if (bounded) {
      const Bounds<T> own = bounds;
      each([&](const V x, const size_t place)
               __attribute__((always_inline)) { SimdStore<T, L>(Within<T, L>(own, x), to + place); });
    } else if (add != nullptr) {
      const T* other = add + (to - results);
      each([&](const V x, const size_t place)
               __attribute__((always_inline)) { SimdStore<T, L>(x + SimdLoad<T, L>(other + place), to + place); });
    } else {
      each([&](const V x, const size_t place) __attribute__((always_inline)) { SimdStore<T, L>(x, to + place); });
    }
  }
};

/// Parts [begin, end) of a line of `count` that is cut into as few as possible of at most `most`, about equally long.
struct EvenParts {
  int count, parts;
  EvenParts(const int count, const int most) : count(count), parts((count + most - 1) / most) {}
  int Begin(const int part) const { return static_cast<int>(static_cast<long long>(count) * part / parts); }
};

/// The input of a tile of a depthwise convolution: `rows` of `columns` vectors, one for each row of the kernel.
template <typename T>
struct DepthwiseTaps {
  int height, width;  // of the kernel
  int dilation;       // columns from one tap to the next
  int columns;
  const T* const* rows;
};

/// Computes some positions of a row: taps, the column of the first tap, packed weights, end, where results go.
template <typename T>
using DepthwiseTile = void (*)(const DepthwiseTaps<T>&, int, const T*, const BlockEnd<T>&, T*);

/// A depthwise convolution of an image, row by row.
template <typename T>
class DepthwiseRows {
 public:
  /// What is given here must outlive it.
  DepthwiseRows(const BlockConv<T>& conv, const AfterConv<T>& after, const ImageBlocks<T>& output);

  /// Rows [begin, end) of a block of the output. input: the block's rows from number `first` on.
  void Run(int block, const T* input, int first, int begin, int end) const;

 private:
  struct Part {
    int begin, x;  // its first position, and the column of the first tap of that
    DepthwiseTile<T> tile;
  };

  template <int S, int K>
  void Cut();
  template <int S>
  void CutForKernel();

  const PlaneShape& shape_;
  const PackedWeights<T>& weights_;
  BlockEnd<T> end_;
  ImageBlocks<T> output_;
  std::vector<T> zeros_;     // a row
  std::vector<Part> parts_;  // of a row
};

template <typename T>
void DepthwiseOfBlocks(const BlockConv<T>& conv, const T* input, const AfterConv<T>& after,
                       const ImageBlocks<T>& output);

}  // namespace caffe

#endif  // CAFFE_UTIL_BLOCK_TILES_HPP_
