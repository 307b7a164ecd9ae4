// Convolutions of one group with outputs in blocks of channels. A tile of up to kMostPixels positions of a row by two
// blocks of outputs is summed in registers over all channels and taps: two vectors of weights times a value of each
// position. Where the input is, for each channel and tap, a table says.
#include "caffe/util/block_conv.hpp"

#include <algorithm>
#include <climits>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "caffe/util/band.hpp"
#include "caffe/util/block_tiles.hpp"
#include "caffe/util/kept_room.hpp"
#include "caffe/util/parallel.hpp"

namespace caffe {

namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kMostPixels = 14;  // 28 sums, 2 of weights, 1 of the input of 32 registers
#else
constexpr int kMostPixels = 6;  // 12 sums, 2 of weights, 1 of the input of 16 registers
#endif
/// Blocks of outputs in a tile, and in a part of the weights.
constexpr int kWide = PackedWeights<float>::kWide;
/// Bytes of input that are multiplied by all weights before the next ones: half of a second-level cache.
constexpr int kInputBytes = 192 * 1024;
/// An input of so many bytes stays in the second-level cache, with the weights of two blocks.
constexpr int kWholeBytes = 400 * 1024;
/// Bytes of input, and of two blocks of the map between two convolutions, that a thread works on at a time.
constexpr int kBandBytes = 300 * 1024;
/// Products that a thread computes at a time, at least: some 10 microseconds.
constexpr int64_t kLeastProducts = 400 * 1000;

/// Memory of the calling thread: 0 for what is between two convolutions, 1 for the padded input.
template <typename T>
T* Room(const int which, const size_t count) {
  static thread_local KeptRoom<T> rooms[2];
  return rooms[which].For(count);
}

template <typename T>
struct Operands {
  int K;
  const ptrdiff_t* taps;  // where the input of each is, seen from that of the first
  const BlockEnd<T>* end;
  size_t block;  // from one block of the output to the next
};

/// P positions by Wide blocks; position p reads its first tap at x[p * Step].
template <typename T, int P, int Wide, int Step>
void DenseTile(const Operands<T>& operands, const T* x, const T* weights, const T* bias, T* to) {
  constexpr int L = SimdLanes<T>();
  typedef SimdT<T, L> V;
  V sum[P][Wide];
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < Wide; ++v) { sum[p][v] = SimdLoad<T, L>(bias + v * L); }
  }
  const int K = operands.K;
  const ptrdiff_t* taps = operands.taps;
  for (int k = 0; k < K; ++k, weights += Wide * L) {
    const T* at = x + taps[k];
    V w[Wide];
#pragma GCC unroll 4
    for (int v = 0; v < Wide; ++v) { w[v] = SimdLoad<T, L>(weights + v * L); }
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      const T value = at[p * Step];
#pragma GCC unroll 4
      for (int v = 0; v < Wide; ++v) { sum[p][v] += value * w[v]; }
    }
  }
  operands.end->template Store<P, Wide>(sum, operands.block, to);
}

template <typename T>
using Tile = void (*)(const Operands<T>&, const T*, const T*, const T*, T*);

/// The tiles of each count of positions, for one or two blocks.
template <typename T, int Step>
struct Tiles {
  Tile<T> of[kMostPixels][kWide];

  Tiles() { Fill<kMostPixels>(); }

 private:
  template <int P>
  void Fill() {
    of[P - 1][0] = DenseTile<T, P, 1, Step>;
    of[P - 1][1] = DenseTile<T, P, 2, Step>;
    if constexpr (P > 1) { Fill<P - 1>(); }
  }
};

/// A convolution of an image as rows of positions, each at a fixed step from the one before.
template <typename T>
struct Dense {
  int rows, length;  // of positions
  int whole;         // positions; the last row may be shorter
  int together;      // rows that are multiplied by all weights at a time
  bool line;         // all positions are at the same step from each other, also from row to row
  const T* input;    // of the first tap of the first position
  size_t row;        // from one row of positions to the next in the input
  int K;
  const ptrdiff_t* taps;
  int blocks;  // of outputs
  const PackedWeights<T>& weights;
  BlockEnd<T> end;

  static constexpr int L = SimdLanes<T>();

  int parts() const { return (blocks + kWide - 1) / kWide; }
  int WideOf(const int part) const { return std::min(kWide, blocks - part * kWide); }

  /// `count` positions from `from` on by a part of the weights. block: from one block of `to` to the next.
  template <int Step>
  void Line(const T* from, const int count, const int part, const size_t block, T* to) const {
    if (count == 0) { return; }  // all that is read of it is padding
    static const Tiles<T, Step> tiles;
    const Operands<T> operands = {K, taps, &end, block};
    const int wide = WideOf(part);
    const EvenParts even(count, kMostPixels);
    // The next part of the weights is fetched ahead, some of it with each tile.
    const size_t values = part + 1 < parts() ? static_cast<size_t>(K) * kWide * L : 0;
    const T* ahead = weights.TapsOf(part + 1);
    const T* const ahead_end = ahead + values;
    const size_t share = DivideUp(values, even.parts);
    for (int i = 0; i < even.parts; ++i) {
      const int x = even.Begin(i);
      for (const T* stop = std::min(ahead_end, ahead + share); ahead < stop; ahead += 64 / sizeof(T)) {
        __builtin_prefetch(ahead, 0, 2);
      }
      tiles.of[even.Begin(i + 1) - x - 1][wide - 1](operands, from + static_cast<ptrdiff_t>(x) * Step,
                                                    weights.TapsOf(part), weights.BiasOf(part), to + x * L);
    }
  }

  /// On the layers' threads.
  template <int Step>
  void Run(const ImageBlocks<T>& output) const {
    const int groups = (rows + together - 1) / together;
    const int64_t products = static_cast<int64_t>(whole) * K * blocks;
    const int threads = products < 2 * kLeastProducts / L ? 1 : ParallelThreads();
    // Few groups: the blocks of outputs are divided as well.
    const int shares = groups >= 6 * threads ? 1 : std::min(parts(), DivideUp(8 * threads, groups));
    const int items = groups * shares;
    ParallelFor(items, threads == 1 ? items : 1, [&](const int begin, const int end_item) {
      for (int item = begin; item < end_item; ++item) {
        const int group = item / shares, share = item % shares;
        for (int part = parts() * share / shares; part < parts() * (share + 1) / shares; ++part) {
          for (int y = group * together; y < std::min(rows, (group + 1) * together); ++y) {
            const size_t to = part * kWide * output.block_size() + static_cast<size_t>(y) * length * L;
            Line<Step>(input + y * row, std::min(length, whole - y * length), part, output.block_size(),
                       output.values + to);
          }
        }
      }
    });
  }

  /// The same, of rows of the map, for a depthwise convolution of `shape`.
  template <int Step>
  void RunFor(const DepthwiseRows<T>& then, const PlaneShape& shape) const {
    const int extent = (shape.kernel_h - 1) * shape.dilation_h + 1, stride = shape.stride_h;
    // Rows of the first map and of its input that stay in the cache; not so few that many are computed twice.
    const size_t row_bytes = sizeof(T) * (static_cast<size_t>(kWide) * L * shape.width + row);
    const int most = std::max<int64_t>(kBandBytes / row_bytes, 8 * (extent - stride) + extent);
    const int band = std::max(1, (most - extent) / stride + 1);
    const int enough = ParallelThreads() == 1 ? 1 : DivideUp(3 * ParallelThreads(), parts());
    const int least = std::max(1, 2 * (extent - stride));
    const int bands = std::max(DivideUp(shape.out_height, band), std::min(enough, DivideUp(shape.out_height, least)));
    const EvenParts rows_of_output(shape.out_height, DivideUp(shape.out_height, bands));
    ParallelFor(rows_of_output.parts * parts(), 1, [&](const int begin, const int end_item) {
      for (int item = begin; item < end_item; ++item) {
        const int i = item / parts(), part = item % parts();
        const int from = rows_of_output.Begin(i), to = rows_of_output.Begin(i + 1);
        const int first = std::max(0, from * stride - shape.pad_h);
        const int last = std::max(first, std::min(shape.height, (to - 1) * stride - shape.pad_h + extent));
        const size_t block = static_cast<size_t>(last - first) * shape.width * L;
        T* map = Room<T>(0, kWide * block);
        if (line) {
          Line<Step>(input + first * row, (last - first) * shape.width, part, block, map);
        } else {
          for (int y = first; y < last; ++y) {
            T* at = map + static_cast<size_t>(y - first) * shape.width * L;
            Line<Step>(input + y * row, shape.width, part, block, at);
          }
        }
        for (int v = 0; v < WideOf(part); ++v) { then.Run(part * kWide + v, map + v * block, first, from, to); }
      }
    });
  }
};

/// The part of planes, or blocks of `lanes` values a position, that a convolution reads, with its padding.
struct Frame {
  int height, width, lanes;

  Frame(const PlaneShape& s, const int lanes)
      : height((s.out_height - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1),
        width((s.out_width - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w + 1),
        lanes(lanes) {}

  bool Within(const PlaneShape& s) const {
    return s.pad_h == 0 && s.pad_w == 0 && height <= s.height && width <= s.width;
  }
  /// Values of a plane or block.
  size_t size() const { return static_cast<size_t>(height) * width * lanes; }

  template <typename T>
  void Fill(const PlaneShape& s, const T* input, const int planes, T* to) const {
    const size_t from_row = static_cast<size_t>(s.width) * lanes, from_plane = s.height * from_row;
    const size_t row = static_cast<size_t>(width) * lanes, left = std::min<size_t>(s.pad_w * size_t(lanes), row);
    const size_t count = static_cast<size_t>(Clamp(width - s.pad_w, 0, s.width)) * lanes;
    const auto fill = [&](const int begin, const int end) {
      for (int p = begin; p < end; ++p) {
        for (int y = 0; y < height; ++y) {
          T* at = to + p * size() + y * row;
          const int in = y - s.pad_h;
          if (in < 0 || in >= s.height) {
            std::fill(at, at + row, T(0));
            continue;
          }
          std::fill(at, at + left, T(0));
          std::copy_n(input + p * from_plane + in * from_row, count, at + left);
          std::fill(at + left + count, at + row, T(0));
        }
      }
    };
    ParallelFor(planes, static_cast<int>(1 + 32768 / size()), fill);
  }
};

/// Calls use(dense), with the distance of positions in the input as a constant. Lanes: values of a position of the
/// input, 1 or a block's. by_rows: rows of positions are rows of the map.
template <int Lanes, typename T, typename Use>
void WithDense(const BlockConv<T>& conv, const ConvInput<T>& input, const BlockEnd<T>& end, const bool by_rows,
               const Use& use) {
  const PlaneShape& s = conv.shape;
  const int K = conv.channels * s.kernel_h * s.kernel_w;
  const int planes = (conv.channels + Lanes - 1) / Lanes;
  const Frame frame(s, Lanes);
  const T* values = input.values;
  int width = frame.width;
  size_t plane = frame.size();
  if (input.order != ConvInput<T>::PADDED_PLANES) {
    if (frame.Within(s)) {
      width = s.width;
      plane = static_cast<size_t>(s.height) * s.width * Lanes;
    } else {
      T* padded = Room<T>(1, planes * plane);
      frame.Fill(s, input.values, planes, padded);
      values = padded;
    }
  }
  static thread_local std::vector<ptrdiff_t> taps;
  taps.resize(K);
  ptrdiff_t* tap = taps.data();
  for (int c = 0; c < conv.channels; ++c) {
    for (int i = 0; i < s.kernel_h; ++i) {
      for (int j = 0; j < s.kernel_w; ++j) {
        *tap++ = c / Lanes * plane + c % Lanes +
                 (static_cast<ptrdiff_t>(i) * s.dilation_h * width + j * s.dilation_w) * Lanes;
      }
    }
  }
  const bool line =
      s.stride_h == 1 && s.stride_w == 1 && s.kernel_h == 1 && s.kernel_w == 1 && s.pad_h == 0 && s.pad_w == 0;
  const int pixels = s.out_height * s.out_width;
  int rows = s.out_height, length = s.out_width, together = 1;
  const int64_t position = static_cast<int64_t>(sizeof(T)) * planes * Lanes;
  if (by_rows) {
  } else if (static_cast<int64_t>(planes * plane * sizeof(T)) <= kWholeBytes) {
    if (line) {
      rows = 1;
      length = pixels;
    }
    together = rows;
  } else if (line) {
    // One long row, cut where the inputs no longer stay in the cache with the weights.
    length = std::min<int64_t>(pixels, std::max<int64_t>(1, kInputBytes / position / kMostPixels) * kMostPixels);
    rows = (pixels + length - 1) / length;
  } else {
    together = std::max<int64_t>(1, kInputBytes / (position * width * s.stride_h));
    together = std::min(together, std::max(1, rows / (4 * ParallelThreads())));
  }
  const Dense<T> dense = {rows,
                          length,
                          pixels,
                          together,
                          line,
                          values,
                          static_cast<size_t>(line ? length : s.stride_h * width) * Lanes,
                          K,
                          taps.data(),
                          (conv.outputs + SimdLanes<T>() - 1) / SimdLanes<T>(),
                          *conv.packed,
                          end};
  if (s.stride_w == 1) {
    use(dense, std::integral_constant<int, Lanes>());
  } else {
    use(dense, std::integral_constant<int, 2 * Lanes>());
  }
}

template <typename T, typename Use>
void WithDense(const BlockConv<T>& conv, const ConvInput<T>& input, const BlockEnd<T>& end, const bool by_rows,
               const Use& use) {
  if (input.order == ConvInput<T>::BLOCKS) {
    WithDense<SimdLanes<T>()>(conv, input, end, by_rows, use);
  } else {
    WithDense<1>(conv, input, end, by_rows, use);
  }
}

}  // namespace

template <typename Dtype>
bool IsBlockConv(const BlockConv<Dtype>& conv) {
  constexpr int64_t L = SimdLanes<Dtype>();
  const PlaneShape& s = conv.shape;
  const int64_t need_h = (s.out_height - 1LL) * s.stride_h + (s.kernel_h - 1LL) * s.dilation_h + 1;
  const int64_t need_w = (s.out_width - 1LL) * s.stride_w + (s.kernel_w - 1LL) * s.dilation_w + 1;
  const int64_t padded = need_h * need_w, map = int64_t{s.height} * s.width, out = int64_t{s.out_height} * s.out_width;
  // A copy of the input with its padding must not be much larger than the input, and indices must fit an int.
  return s.stride_w <= 2 && padded <= 4 * map + 4096 &&
         std::max(padded, std::max(map, out)) * (std::max(conv.channels, conv.outputs) + L) <= INT_MAX;
}

template <typename Dtype>
size_t PaddedSize(const BlockConv<Dtype>& conv) {
  return conv.channels * Frame(conv.shape, 1).size();
}

template <typename Dtype>
void PadPlanes(const BlockConv<Dtype>& conv, const Dtype* image, Dtype* to) {
  Frame(conv.shape, 1).Fill(conv.shape, image, conv.channels, to);
}

template <typename Dtype>
void ConvToBlocks(const BlockConv<Dtype>& conv, const ConvInput<Dtype>& input, const AfterConv<Dtype>& after,
                  const Dtype* add, const ImageBlocks<Dtype>& output) {
  if (conv.depthwise) { return DepthwiseOfBlocks(conv, input.values, after, output); }
  BlockEnd<Dtype> end(after);
  end.add = add;
  end.results = output.values;
  WithDense(conv, input, end, false,
            [&](const Dense<Dtype>& dense, const auto step) { dense.template Run<step.value>(output); });
}

template <typename Dtype>
void ConvAndDepthwise(const BlockConv<Dtype>& first, const ConvInput<Dtype>& input, const AfterConv<Dtype>& after_first,
                      const BlockConv<Dtype>& second, const AfterConv<Dtype>& after_second,
                      const ImageBlocks<Dtype>& output) {
  const DepthwiseRows<Dtype> then(second, after_second, output);
  WithDense(first, input, BlockEnd<Dtype>(after_first), true,
            [&](const Dense<Dtype>& dense, const auto step) { dense.template RunFor<step.value>(then, second.shape); });
}

#define INSTANTIATE_BLOCK_CONV(Dtype)                                                                              \
  template bool IsBlockConv<Dtype>(const BlockConv<Dtype>&);                                                       \
  template size_t PaddedSize<Dtype>(const BlockConv<Dtype>&);                                                      \
  template void PadPlanes<Dtype>(const BlockConv<Dtype>&, const Dtype*, Dtype*);                                   \
  template void ConvToBlocks<Dtype>(const BlockConv<Dtype>&, const ConvInput<Dtype>&, const AfterConv<Dtype>&,     \
                                    const Dtype*, const ImageBlocks<Dtype>&);                                      \
  template void ConvAndDepthwise<Dtype>(const BlockConv<Dtype>&, const ConvInput<Dtype>&, const AfterConv<Dtype>&, \
                                        const BlockConv<Dtype>&, const AfterConv<Dtype>&, const ImageBlocks<Dtype>&)
INSTANTIATE_BLOCK_CONV(float);
INSTANTIATE_BLOCK_CONV(double);

}  // namespace caffe
