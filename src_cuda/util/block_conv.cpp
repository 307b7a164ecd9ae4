// Convolutions of one group with outputs in blocks of channels. A tile of up to kMostPixels positions of a row by two
// blocks of outputs is summed in registers over all channels and taps: two vectors of weights times a value of each
// position. Where the input is, for each channel and tap, a table says. Weights are packed anew in each call: they may
// be changed at any time, through pointers that were given long before.
#include "caffe/util/block_conv.hpp"

#include <algorithm>
#include <climits>
#include <cstdint>
#include <vector>

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
/// Blocks of outputs in a tile.
constexpr int kWide = 2;
/// Bytes of input that are multiplied by all weights before the next ones: half of a second-level cache.
constexpr int kInputBytes = 192 * 1024;
/// An input of so many bytes stays in the second-level cache, with the weights of two blocks.
constexpr int kWholeBytes = 400 * 1024;
/// Products that a thread computes at a time, at least: some 10 microseconds.
constexpr int64_t kLeastProducts = 400 * 1000;

/// Memory of the calling thread: 0 for a pair's packed weights, 1 for all of them, 2 for the padded input.
template <typename T>
T* Room(const int which, const size_t count) {
  static thread_local KeptRoom<T> rooms[3];
  return rooms[which].For(count);
}

/// Outputs [first, first + rows) x K as K x lanes, the lanes beyond `rows` 0. A few k at a time, so that whole lines
/// are written.
template <typename T>
void PackWeights(const T* from, const int rows, const int K, const int lanes, T* to) {
  constexpr int kStep = 64 / sizeof(T);
  const int whole = rows / 4 * 4;
  for (int begin = 0; begin < K; begin += kStep) {
    const int end = std::min(K, begin + kStep);
    // What comes next, which so many rows at a time keep the processor from fetching ahead by itself.
    const T* ahead = from + (static_cast<size_t>(K) + begin) * lanes;
    for (int line = 0; line < lanes; ++line) { __builtin_prefetch(ahead + line * kStep); }
    for (int l = 0; l < whole; l += 4) {
      const T* row = from + static_cast<size_t>(l) * K;
      int k = begin;
      for (; k + 4 <= end; k += 4) { SimdTranspose(row + k, K, to + static_cast<size_t>(k) * lanes + l, lanes); }
      for (; k < end; ++k) {
        for (int i = 0; i < 4; ++i) {
          to[static_cast<size_t>(k) * lanes + l + i] = row[static_cast<size_t>(i) * K + k];
        }
      }
    }
    for (int l = whole; l < lanes; ++l) {
      for (int k = begin; k < end; ++k) {
        to[static_cast<size_t>(k) * lanes + l] = l < rows ? from[static_cast<size_t>(l) * K + k] : T(0);
      }
    }
  }
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
void DenseTile(const Operands<T>& operands, const T* x, const T* weights, const T* bias, T* sums, T* to) {
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
  operands.end->template Store<P, Wide>(sum, operands.block, sums, to);
}

template <typename T>
using Tile = void (*)(const Operands<T>&, const T*, const T*, const T*, T*, T*);

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
  const T* input;    // of the first tap of the first position
  size_t row;        // from one row of positions to the next in the input
  int K;
  const ptrdiff_t* taps;
  const BlockConv<T>& conv;
  BlockEnd<T> end;
  ImageBlocks<T> sums, output;

  static constexpr int L = SimdLanes<T>();

  int pairs() const { return (output.blocks() + kWide - 1) / kWide; }
  int WideOf(const int pair) const { return std::min(kWide, output.blocks() - pair * kWide); }
  size_t packed_size() const { return static_cast<size_t>(kWide) * L * (K + 1); }

  /// The bias of a pair of blocks, then its weights, in the order in which a tile reads them.
  void Pack(const int pair, T* to) const {
    const int first = pair * kWide * L, lanes = WideOf(pair) * L;
    for (int l = 0; l < kWide * L; ++l) {
      to[l] = conv.bias == nullptr || first + l >= conv.outputs ? T(0) : conv.bias[first + l];
    }
    PackWeights(conv.weights + static_cast<size_t>(first) * K, std::min(lanes, conv.outputs - first), K, lanes,
                to + kWide * L);
  }

  /// Rows [begin, end) by a pair of blocks.
  template <int Step>
  void Multiply(const int begin, const int end_row, const int pair, const T* packed) const {
    static const Tiles<T, Step> tiles;
    const Operands<T> operands = {K, taps, &end, output.block_size()};
    const int block = pair * kWide, wide = WideOf(pair);
    for (int y = begin; y < end_row; ++y) {
      const T* from = input + y * row;
      const size_t to = block * output.block_size() + static_cast<size_t>(y) * length * L;
      const EvenParts parts(std::min(length, whole - y * length), kMostPixels);
      for (int part = 0; part < parts.parts; ++part) {
        const int x = parts.Begin(part);
        tiles.of[parts.Begin(part + 1) - x - 1][wide - 1](
            operands, from + static_cast<ptrdiff_t>(x) * Step, packed + kWide * L, packed,
            (sums.values == nullptr ? output.values : sums.values) + to + x * L, output.values + to + x * L);
      }
    }
  }

  /// On the layers' threads.
  template <int Step>
  void Run() const {
    const int groups = (rows + together - 1) / together;
    const int64_t products = static_cast<int64_t>(whole) * K * output.blocks();
    const int threads = products < 2 * kLeastProducts / L ? 1 : ParallelThreads();
    if (groups == 1) {
      // Each pair of blocks is used once: its weights are packed into the cache right before.
      const int grain = threads == 1 ? pairs() : std::max(1, pairs() / (4 * threads));
      ParallelFor(pairs(), grain, [&](const int begin, const int end_pair) {
        T* packed = Room<T>(0, packed_size());
        for (int pair = begin; pair < end_pair; ++pair) {
          Pack(pair, packed);
          Multiply<Step>(0, rows, pair, packed);
        }
      });
      return;
    }
    T* packed = Room<T>(1, pairs() * packed_size());
    ParallelFor(pairs(), std::max<int>(1, 16384 / packed_size()), [&](const int begin, const int end_pair) {
      for (int pair = begin; pair < end_pair; ++pair) { Pack(pair, packed + pair * packed_size()); }
    });
    // Few groups: the blocks of outputs are divided as well.
    const int shares = groups >= 3 * threads ? 1 : std::min(pairs(), (4 * threads + groups - 1) / groups);
    const int items = groups * shares;
    ParallelFor(items, threads == 1 ? items : 1, [&](const int begin, const int end_item) {
      for (int item = begin; item < end_item; ++item) {
        const int group = item / shares, share = item % shares;
        for (int pair = pairs() * share / shares; pair < pairs() * (share + 1) / shares; ++pair) {
          Multiply<Step>(group * together, std::min(rows, (group + 1) * together), pair, packed + pair * packed_size());
        }
      }
    });
  }
};

/// The input with its padding, where there is some: planes or blocks of `lanes` values a position.
template <typename T>
struct Padded {
  const T* values;
  int width;     // positions in a row
  size_t plane;  // values from one plane or block to the next

  Padded(const PlaneShape& s, const T* input, const int planes, const int lanes)
      : values(input), width(s.width), plane(static_cast<size_t>(s.height) * s.width * lanes) {
    const int need_h = (s.out_height - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1;
    const int need_w = (s.out_width - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w + 1;
    if (s.pad_h == 0 && s.pad_w == 0 && need_h <= s.height && need_w <= s.width) { return; }
    const size_t from_plane = plane, from_row = static_cast<size_t>(s.width) * lanes;
    width = need_w;
    plane = static_cast<size_t>(need_h) * need_w * lanes;
    T* made = Room<T>(2, planes * plane);
    values = made;
    const int kept = std::max(0, std::min(s.width, need_w - s.pad_w));
    const size_t row = static_cast<size_t>(need_w) * lanes, before = static_cast<size_t>(s.pad_w) * lanes;
    const size_t count = static_cast<size_t>(kept) * lanes;
    const size_t to_plane = plane;
    ParallelFor(planes, std::max(1, static_cast<int>(32768 / plane)), [=](const int begin, const int end) {
      for (int p = begin; p < end; ++p) {
        for (int y = 0; y < need_h; ++y) {
          T* to = made + p * to_plane + y * row;
          const int in = y - s.pad_h;
          if (in < 0 || in >= s.height) {
            std::fill(to, to + row, T(0));
            continue;
          }
          std::fill(to, to + std::min(before, row), T(0));
          std::copy_n(input + p * from_plane + in * from_row, count, to + std::min(before, row));
          std::fill(to + std::min(before + count, row), to + row, T(0));
        }
      }
    });
  }
};

/// Lanes: values of a position of the input, 1 or a block's.
template <int Lanes, typename T>
void RunDense(const BlockConv<T>& conv, const T* input, const AfterConv<T>& after, const ImageBlocks<T>& sums,
              const ImageBlocks<T>& output) {
  const PlaneShape& s = conv.shape;
  const int K = conv.channels * s.kernel_h * s.kernel_w;
  const int planes = (conv.channels + Lanes - 1) / Lanes;
  const Padded<T> padded(s, input, planes, Lanes);
  static thread_local std::vector<ptrdiff_t> taps;
  taps.resize(K);
  ptrdiff_t* tap = taps.data();
  for (int c = 0; c < conv.channels; ++c) {
    for (int i = 0; i < s.kernel_h; ++i) {
      for (int j = 0; j < s.kernel_w; ++j) {
        *tap++ = c / Lanes * padded.plane + c % Lanes +
                 (static_cast<ptrdiff_t>(i) * s.dilation_h * padded.width + j * s.dilation_w) * Lanes;
      }
    }
  }
  const bool line =
      s.stride_h == 1 && s.stride_w == 1 && s.kernel_h == 1 && s.kernel_w == 1 && s.pad_h == 0 && s.pad_w == 0;
  const int pixels = s.out_height * s.out_width;
  int rows = s.out_height, length = s.out_width, together;
  const int64_t position = static_cast<int64_t>(sizeof(T)) * planes * Lanes;
  if (static_cast<int64_t>(planes * padded.plane * sizeof(T)) <= kWholeBytes) {
    if (line) {
      rows = 1;
      length = pixels;
    }
    together = rows;
  } else if (line) {
    // One long row, cut where the inputs no longer stay in the cache with the weights.
    length = std::min<int64_t>(pixels, std::max<int64_t>(1, kInputBytes / position / kMostPixels) * kMostPixels);
    rows = (pixels + length - 1) / length;
    together = 1;
  } else {
    together = std::max<int64_t>(1, kInputBytes / (position * padded.width * s.stride_h));
    together = std::min(together, std::max(1, rows / (4 * ParallelThreads())));
  }
  const Dense<T> dense = {rows,
                          length,
                          pixels,
                          together,
                          padded.values,
                          static_cast<size_t>(line ? length : s.stride_h * padded.width) * Lanes,
                          K,
                          taps.data(),
                          conv,
                          BlockEnd<T>(after, sums.values != nullptr),
                          sums,
                          output};
  if (s.stride_w == 1) {
    dense.template Run<Lanes>();
  } else {
    dense.template Run<2 * Lanes>();
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
void ConvOfBlocks(const BlockConv<Dtype>& conv, const ImageBlocks<const Dtype>& input, const AfterConv<Dtype>& after,
                  const ImageBlocks<Dtype>& sums, const ImageBlocks<Dtype>& output) {
  if (conv.depthwise) {
    DepthwiseOfBlocks(conv, input, BlockEnd<Dtype>(after, sums.values != nullptr), sums, output);
  } else {
    RunDense<SimdLanes<Dtype>()>(conv, input.values, after, sums, output);
  }
}

template <typename Dtype>
void ConvOfPlanes(const BlockConv<Dtype>& conv, const Dtype* input, const AfterConv<Dtype>& after,
                  const ImageBlocks<Dtype>& sums, const ImageBlocks<Dtype>& output) {
  RunDense<1>(conv, input, after, sums, output);
}

#define INSTANTIATE_BLOCK_CONV(Dtype)                                                                                  \
  template bool IsBlockConv<Dtype>(const BlockConv<Dtype>&);                                                           \
  template void ConvOfBlocks<Dtype>(const BlockConv<Dtype>&, const ImageBlocks<const Dtype>&, const AfterConv<Dtype>&, \
                                    const ImageBlocks<Dtype>&, const ImageBlocks<Dtype>&);                             \
  template void ConvOfPlanes<Dtype>(const BlockConv<Dtype>&, const Dtype*, const AfterConv<Dtype>&,                    \
                                    const ImageBlocks<Dtype>&, const ImageBlocks<Dtype>&)
INSTANTIATE_BLOCK_CONV(float);
INSTANTIATE_BLOCK_CONV(double);

}  // namespace caffe
