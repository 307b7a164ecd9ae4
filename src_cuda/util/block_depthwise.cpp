// Depthwise convolutions in blocks of channels. A tile of up to kMostPixels positions of a row is summed in registers.
// For kernels of 3 to 6 columns each column of the input is read once for all taps that it meets. Rows of taps
// above and below the map read a row of zeros; where a tile reaches over an edge, columns outside are 0.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "caffe/util/block_tiles.hpp"
#include "caffe/util/parallel.hpp"

namespace caffe {

namespace {

/// At most 10 sums, 4 of weights and the input of 16 registers.
template <int K>
constexpr int kMostPixels = K == 3 || K == 4 ? 10 : 8;
constexpr int64_t kLeastProducts = 100 * 1000;

/// P positions, S columns of the input apart, the first tap of the first one in column `x`; kernels of K columns, 0:
/// any number, any distance apart. Edge: columns may lie outside of the rows.
template <typename T, int P, int S, int K, bool Edge>
void Tile(const DepthwiseTaps<T>& taps, const int x, const T* weights, const BlockEnd<T>& end, T* to) {
  constexpr int L = SimdLanes<T>();
  typedef SimdT<T, L> V;
  const int columns = taps.columns;
  // Column x + c of a row, of which `at` is column x.
  const auto read = [x, columns](const T* at, const int c) __attribute__((always_inline)) {
    if (Edge && static_cast<unsigned>(x + c) >= static_cast<unsigned>(columns)) { return V{}; }
    return SimdLoad<T, L>(at + c * L);
  };
  V sum[P][1];
#pragma GCC unroll 10
  for (int p = 0; p < P; ++p) { sum[p][0] = SimdLoad<T, L>(weights); }
  weights += L;
  for (int i = 0; i < taps.height; ++i) {
    const T* at = InRegister(taps.rows[i] + static_cast<ptrdiff_t>(x) * L);
    if constexpr (K == 0) {
      for (int j = 0; j < taps.width; ++j, weights += L) {
        const V w = SimdLoad<T, L>(weights);
#pragma GCC unroll 10
        for (int p = 0; p < P; ++p) { sum[p][0] += w * read(at, p * S + j * taps.dilation); }
      }
    } else {
      V w[K];
#pragma GCC unroll 6
      for (int j = 0; j < K; ++j) { w[j] = SimdLoad<T, L>(weights + j * L); }
      weights += K * L;
#pragma GCC unroll 24
      for (int c = 0; c < (P - 1) * S + K; ++c) {
        const V value = InRegister(read(at, c));
#pragma GCC unroll 6
        for (int j = 0; j < K; ++j) {
          if (c >= j && (c - j) % S == 0 && (c - j) / S < P) { sum[(c - j) / S][0] += w[j] * value; }
        }
      }
    }
  }
  end.template Store<P, 1>(sum, 0, to);
}

template <typename T, int S, int K>
struct Tiles {
  DepthwiseTile<T> of[kMostPixels<K>][2];

  Tiles() { Fill<kMostPixels<K>>(); }

 private:
  template <int P>
  void Fill() {
    of[P - 1][0] = Tile<T, P, S, K, K == 0>;
    of[P - 1][1] = Tile<T, P, S, K, true>;
    if constexpr (P > 1) { Fill<P - 1>(); }
  }
};

}  // namespace

template <typename T>
template <int S, int K>
void DepthwiseRows<T>::Cut() {
  static const Tiles<T, S, K> tiles;
  const EvenParts even(shape_.out_width, kMostPixels<K>);
  const int extent = (shape_.kernel_w - 1) * shape_.dilation_w + 1;
  for (int i = 0; i < even.parts; ++i) {
    const int begin = even.Begin(i), count = even.Begin(i + 1) - begin, x = begin * S - shape_.pad_w;
    const bool edge = x < 0 || x + (count - 1) * S + extent > shape_.width;
    parts_.push_back({begin, x, tiles.of[count - 1][edge]});
  }
}

template <typename T>
template <int S>
void DepthwiseRows<T>::CutForKernel() {
  const int columns = shape_.dilation_w == 1 && sizeof(T) == sizeof(float) ? shape_.kernel_w : 0;
  switch (columns) {
    case 3: return Cut<S, 3>();
    case 4: return Cut<S, 4>();
    case 5: return Cut<S, 5>();
    case 6: return Cut<S, 6>();
    default: return Cut<S, 0>();
  }
}

template <typename T>
DepthwiseRows<T>::DepthwiseRows(const BlockConv<T>& conv, const AfterConv<T>& after, const ImageBlocks<T>& output)
    : shape_(conv.shape),
      weights_(*conv.packed),
      end_(after),
      output_(output),
      zeros_(static_cast<size_t>(conv.shape.width) * SimdLanes<T>()) {
  if (shape_.stride_w == 1) {
    CutForKernel<1>();
  } else {
    CutForKernel<2>();
  }
}

template <typename T>
void DepthwiseRows<T>::Run(const int block, const T* input, const int first, const int begin, const int end) const {
  constexpr int L = SimdLanes<T>();
  static thread_local std::vector<const T*> rows;
  rows.resize(shape_.kernel_h);
  const DepthwiseTaps<T> taps = {shape_.kernel_h, shape_.kernel_w, shape_.dilation_w, shape_.width, rows.data()};
  const T* weights = weights_.BiasOf(block);
  for (int y = begin; y < end; ++y) {
    for (int i = 0; i < shape_.kernel_h; ++i) {
      const int in = y * shape_.stride_h - shape_.pad_h + i * shape_.dilation_h;
      rows[i] =
          in < 0 || in >= shape_.height ? zeros_.data() : input + static_cast<ptrdiff_t>(in - first) * shape_.width * L;
    }
    const size_t place = block * output_.block_size() + static_cast<size_t>(y) * shape_.out_width * L;
    for (const Part& part : parts_) {
      const size_t at = place + part.begin * L;
      part.tile(taps, part.x, weights, end_, output_.values + at);
    }
  }
}

template <typename T>
void DepthwiseOfBlocks(const BlockConv<T>& conv, const T* input, const AfterConv<T>& after,
                       const ImageBlocks<T>& output) {
  constexpr int L = SimdLanes<T>();
  const PlaneShape& s = conv.shape;
  const int all = output.blocks();
  const int64_t products = static_cast<int64_t>(all) * output.block_size() * s.kernel_h * s.kernel_w;
  const int threads = products < 2 * kLeastProducts ? 1 : ParallelThreads();
  const int shares = all >= 2 * threads ? 1 : std::min(s.out_height, (2 * threads + all - 1) / all);
  const int items = all * shares;
  const int grain =
      threads == 1 ? items
                   : std::max<int64_t>(1, std::min<int64_t>(items / (2 * threads), items * kLeastProducts / products));
  const DepthwiseRows<T> rows(conv, after, output);
  const size_t block_size = static_cast<size_t>(s.height) * s.width * L;
  ParallelFor(items, grain, [&](const int begin, const int end) {
    for (int item = begin; item < end; ++item) {
      const int block = item / shares, share = item % shares;
      rows.Run(block, input + block * block_size, 0, s.out_height * share / shares,
               s.out_height * (share + 1) / shares);
    }
  });
}

#define INSTANTIATE_DEPTHWISE(Dtype)                                                                     \
  template class DepthwiseRows<Dtype>;                                                                   \
  template void DepthwiseOfBlocks<Dtype>(const BlockConv<Dtype>&, const Dtype*, const AfterConv<Dtype>&, \
                                         const ImageBlocks<Dtype>&)
INSTANTIATE_DEPTHWISE(float);
INSTANTIATE_DEPTHWISE(double);

}  // namespace caffe
