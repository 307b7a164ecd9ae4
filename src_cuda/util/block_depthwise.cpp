// Depthwise convolutions in blocks of channels: a tile of up to kMostPixels positions of a row is summed in registers,
// each tap a vector of weights times the vectors of the input. Rows of taps above and below the map are left out. At
// the left and right edge a tile reads a copy of its input with the padding; of a narrow map, most of which is edges,
// all rows are copied once.
#include <algorithm>
#include <vector>

#include "caffe/util/band.hpp"
#include "caffe/util/block_tiles.hpp"
#include "caffe/util/parallel.hpp"

namespace caffe {

namespace {

/// 8 sums, 1 of weights of 16 registers; more would make the edges, which are copied, wider.
constexpr int kMostPixels = 8;
constexpr int64_t kLeastProducts = 100 * 1000;

template <typename T>
struct Taps {
  int height, width;     // of the kernel
  const T* const* rows;  // of the input, for each row of the kernel
  size_t column;         // from one tap to the next in a row
  const T* weights;
};

/// P positions, S columns of the input apart.
template <typename T, int P, int S>
inline __attribute__((always_inline)) void DepthwiseTile(const Taps<T>& taps, const ptrdiff_t x,
                                                         const SimdT<T, SimdLanes<T>()> bias, const BlockEnd<T>& end,
                                                         T* sums, T* to) {
  constexpr int L = SimdLanes<T>();
  SimdT<T, L> sum[P][1];
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) { sum[p][0] = bias; }
  const T* weights = taps.weights;
  for (int i = 0; i < taps.height; ++i) {
    const T* at = taps.rows[i] + x;
    for (int j = 0; j < taps.width; ++j, at += taps.column, weights += L) {
      const SimdT<T, L> w = SimdLoad<T, L>(weights);
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) { sum[p][0] += w * SimdLoad<T, L>(at + p * S * L); }
    }
  }
  end.template Store<P, 1>(sum, 0, sums, to);
}

/// `count` positions, the first tap of the first one at index x of its row: tiles, and one more of those that are left.
template <typename T, int S>
void DepthwiseLine(const Taps<T>& all_taps, ptrdiff_t x, const SimdT<T, SimdLanes<T>()>* bias_of,
                   const BlockEnd<T>& ends, int count, T* sums, T* to) {
  constexpr int L = SimdLanes<T>();
  // Copies, which what is stored does not overlap.
  const Taps<T> taps = all_taps;
  const BlockEnd<T> end = ends;
  const SimdT<T, L> bias = *bias_of;
  constexpr int P = kMostPixels;
  for (; count >= P; count -= P, x += P * S * L, sums += P * L, to += P * L) {
    DepthwiseTile<T, P, S>(taps, x, bias, end, sums, to);
  }
  switch (count) {
    case 7: DepthwiseTile<T, 7, S>(taps, x, bias, end, sums, to); break;
    case 6: DepthwiseTile<T, 6, S>(taps, x, bias, end, sums, to); break;
    case 5: DepthwiseTile<T, 5, S>(taps, x, bias, end, sums, to); break;
    case 4: DepthwiseTile<T, 4, S>(taps, x, bias, end, sums, to); break;
    case 3: DepthwiseTile<T, 3, S>(taps, x, bias, end, sums, to); break;
    case 2: DepthwiseTile<T, 2, S>(taps, x, bias, end, sums, to); break;
    case 1: DepthwiseTile<T, 1, S>(taps, x, bias, end, sums, to); break;
  }
}

/// A map whose rows fit this many bytes with their padding is copied.
constexpr size_t kNarrowBytes = 24 * 1024;

/// Columns [first, first + columns) of a row of the map, 0 outside of it.
template <typename T>
inline void CopyColumns(const T* row, const int width, const int first, const int columns, T* to) {
  constexpr int L = SimdLanes<T>();
  const int from = std::min(columns, std::max(0, -first)), end = std::max(from, std::min(columns, width - first));
  int x = 0;
  for (; x < from; ++x) { SimdStore<T, L>(SimdT<T, L>{}, to + x * L); }
  const T* values = row + static_cast<ptrdiff_t>(first) * L;
  for (; x < end; ++x) { SimdStore<T, L>(SimdLoad<T, L>(values + x * L), to + x * L); }
  for (; x < columns; ++x) { SimdStore<T, L>(SimdT<T, L>{}, to + x * L); }
}

/// Rows [begin, end) of the output of a block.
template <typename T, int S>
void Rows(const PlaneShape& s, const T* input, const T* weights, const SimdT<T, SimdLanes<T>()>& bias,
          const BlockEnd<T>& end, const int begin, const int end_row, T* sums, T* output) {
  constexpr int L = SimdLanes<T>();
  static thread_local std::vector<T> edge, narrow, zeros;
  static thread_local std::vector<const T*> rows, edge_rows;
  const int extent = (s.kernel_w - 1) * s.dilation_w + 1, needed = (s.out_width - 1) * S + extent;
  int width = s.width, pad = s.pad_w;
  const bool edges = pad > 0 || needed > width;
  if (edges && s.height * static_cast<size_t>(needed) * L * sizeof(T) <= kNarrowBytes) {
    narrow.resize(s.height * static_cast<size_t>(needed) * L);
    const int first = std::max(0, begin * s.stride_h - s.pad_h);
    const int last = std::min(s.height, (end_row - 1) * s.stride_h - s.pad_h + (s.kernel_h - 1) * s.dilation_h + 1);
    for (int y = first; y < last; ++y) {
      CopyColumns(input + static_cast<size_t>(y) * width * L, width, -pad, needed,
                  narrow.data() + static_cast<size_t>(y) * needed * L);
    }
    input = narrow.data();
    width = needed;
    pad = 0;
  }
  const size_t in_row = static_cast<size_t>(width) * L;
  zeros.resize(in_row);
  rows.resize(s.kernel_h);
  edge_rows.resize(s.kernel_h);
  // Positions [inner, inner_end) read no padding. One position is summed as fast as a tile of them.
  const int inner = pad == 0 ? 0 : std::min(s.out_width, DivideUp(pad, S * kMostPixels) * kMostPixels);
  const int outer = std::max(0, s.out_width - std::max(0, (width - extent + pad) / S + 1));
  const int inner_end = std::max(inner, s.out_width - DivideUp(outer, kMostPixels) * kMostPixels);
  for (int y = begin; y < end_row; ++y) {
    const int top = y * s.stride_h - s.pad_h;
    for (int i = 0; i < s.kernel_h; ++i) {
      const int in = top + i * s.dilation_h;
      rows[i] = in < 0 || in >= s.height ? zeros.data() : input + in * in_row;
    }
    const Taps<T> taps = {s.kernel_h, s.kernel_w, rows.data(), static_cast<size_t>(s.dilation_w) * L, weights};
    // Positions [from, to) of the row.
    const auto run = [&](const int from, const int to) {
      if (from >= to) { return; }
      const int left = from * S - pad, columns = (to - from - 1) * S + extent;
      const size_t place = (static_cast<size_t>(y) * s.out_width + from) * L;
      T* sums_to = (sums == nullptr ? output : sums) + place;
      if (left >= 0 && left + columns <= width) {
        DepthwiseLine<T, S>(taps, left * L, &bias, end, to - from, sums_to, output + place);
        return;
      }
      const size_t edge_row = static_cast<size_t>(columns) * L;
      edge.resize(s.kernel_h * edge_row);
      for (int i = 0; i < s.kernel_h; ++i) {
        CopyColumns(rows[i], width, left, columns, edge.data() + i * edge_row);
        edge_rows[i] = edge.data() + i * edge_row;
      }
      Taps<T> copied = taps;
      copied.rows = edge_rows.data();
      DepthwiseLine<T, S>(copied, 0, &bias, end, to - from, sums_to, output + place);
    };
    run(0, inner);
    run(inner, inner_end);
    run(inner_end, s.out_width);
  }
}

}  // namespace

template <typename T>
void DepthwiseOfBlocks(const BlockConv<T>& conv, const ImageBlocks<const T>& input, const BlockEnd<T>& end,
                       const ImageBlocks<T>& sums, const ImageBlocks<T>& output) {
  constexpr int L = SimdLanes<T>();
  const PlaneShape& s = conv.shape;
  const int taps = s.kernel_h * s.kernel_w, all = output.blocks();
  const int64_t products = static_cast<int64_t>(all) * output.block_size() * taps;
  const int threads = products < 2 * kLeastProducts ? 1 : ParallelThreads();
  const int shares = all >= 2 * threads ? 1 : std::min(s.out_height, (2 * threads + all - 1) / all);
  const int items = all * shares;
  const int grain =
      threads == 1 ? items
                   : std::max<int64_t>(1, std::min<int64_t>(items / (2 * threads), items * kLeastProducts / products));
  ParallelFor(items, grain, [&](const int begin, const int end_item) {
    static thread_local std::vector<T> kernel;
    kernel.resize(taps * L);
    for (int item = begin; item < end_item; ++item) {
      const int block = item / shares, share = item % shares;
      const int first = block * L, channels = std::min(L, conv.channels - first);
      SimdT<T, L> bias = {};
      for (int l = 0; l < channels; ++l) {
        for (int t = 0; t < taps; ++t) {
          kernel[t * L + l] = conv.weights[(first + l) * static_cast<size_t>(taps) + t];
        }
        if (conv.bias != nullptr) { bias[l] = conv.bias[first + l]; }
      }
      for (int l = channels; l < L; ++l) {
        for (int t = 0; t < taps; ++t) { kernel[t * L + l] = T(0); }
      }
      const auto rows = s.stride_w == 1 ? Rows<T, 1> : Rows<T, 2>;
      rows(s, input.values + block * input.block_size(), kernel.data(), bias, end, s.out_height * share / shares,
           s.out_height * (share + 1) / shares,
           sums.values == nullptr ? nullptr : sums.values + block * sums.block_size(),
           output.values + block * output.block_size());
    }
  });
}

template void DepthwiseOfBlocks<float>(const BlockConv<float>&, const ImageBlocks<const float>&, const BlockEnd<float>&,
                                       const ImageBlocks<float>&, const ImageBlocks<float>&);
template void DepthwiseOfBlocks<double>(const BlockConv<double>&, const ImageBlocks<const double>&,
                                        const BlockEnd<double>&, const ImageBlocks<double>&,
                                        const ImageBlocks<double>&);

}  // namespace caffe
