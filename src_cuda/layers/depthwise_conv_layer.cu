#include <algorithm>
#include <vector>

#include "caffe/layers/depthwise_conv_layer.hpp"
#include "caffe/util/block_sum.cuh"
#include "caffe/util/device_alternate.hpp"

// Depthwise convolution on the GPU.
//
// A value of the input is used in K x K sums only, so memory is the bound. What counts is that each value is read from
// it once, and that all threads have work on the small planes at the end of a net.
//
// Forward, and the gradient of the input at stride 1 (a convolution with the kernel rotated by 180 degrees): a thread
// computes `Rows` outputs of a column. It goes down the rows of the input and adds each value to all sums that use it,
// which are in registers. Neighbouring threads read neighbouring columns, so a warp reads whole lines, and the K reads
// of a line come from the first-level cache. Threads are numbered over planes, rows of tiles and columns together, so
// that planes smaller than a warp share one.
//
// The gradient of the input at stride 2: a thread computes 2 x 2 positions of the input, which take the same outputs.
// At other strides, and with dilation: a thread computes one position. It steps through the kernel positions that
// connect it with an output and skips the others without testing them.
//
// Gradients of weights and bias: a block computes a share of a channel's outputs. Each thread keeps the sums of the
// whole kernel in registers, the block adds them up by shuffles, and a second kernel adds the sums of the blocks in a
// fixed order. There are no atomics, so a run can be repeated exactly.
//
// K = 0 stands for a kernel of any size, whose loops are not unrolled.
namespace caffe {

namespace {

constexpr int kThreads = 256;

/// Positions are unsigned: a blob has at most INT_MAX values, and a 64-bit division takes longer than all sums of a
/// kernel position. The grid is small enough for a loop's last step not to overflow.
int BlockCount(const unsigned threads) { return std::min((threads + kThreads - 1) / kThreads, 1u << 20); }

/// Blocks that a multiprocessor has threads for; the compiler ignores a larger number.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 750
constexpr int kMostBlocks = 1024 / kThreads;
#else
constexpr int kMostBlocks = 1536 / kThreads;
#endif

/// Blocks of a multiprocessor at once that the registers have to leave room for (65536 registers on a multiprocessor).
/// One register more than that costs a block, and a kernel bound by memory some 15% of its speed (measured on an H100).
template <typename Dtype>
constexpr int RowsBlocks(const int k) {
  return sizeof(Dtype) == 4 && k == 3 ? kMostBlocks : 1;
}
template <typename Dtype>
constexpr int PartsBlocks(const int k) {
  return sizeof(Dtype) > 4 ? 1 : k == 3 ? kMostBlocks : k == 4 || k == 5 ? 4 : k == 6 ? 3 : 1;
}

/// Outputs of a column that one thread computes.
constexpr int RowsOfThread(const int stride) { return stride == 1 ? 4 : 2; }

template <typename Dtype, int K, int S, int Rows, bool Rotated>
__global__ void __launch_bounds__(kThreads, RowsBlocks<Dtype>(K))
    DepthwiseRowsKernel(const DepthwiseShape s, const unsigned threads, const int channels,
                        const Dtype* __restrict__ input, const Dtype* __restrict__ weights,
                        const Dtype* __restrict__ bias, Dtype* __restrict__ output) {
  const int kernel_h = K > 0 ? K : s.kernel_h, kernel_w = K > 0 ? K : s.kernel_w;
  const int stride_h = S > 0 ? S : s.stride_h, stride_w = S > 0 ? S : s.stride_w;
  const int dilation_h = K > 0 ? 1 : s.dilation_h, dilation_w = K > 0 ? 1 : s.dilation_w;
  const unsigned tiles = (s.out_height + Rows - 1) / Rows, width = s.out_width;
  for (unsigned at = blockIdx.x * kThreads + threadIdx.x; at < threads; at += gridDim.x * kThreads) {
    const unsigned row = at / width;
    const int x = at % width;
    const int y = row % tiles * Rows;
    const int plane = row / tiles;
    const int c = plane % channels;
    const Dtype* in = input + static_cast<int64_t>(plane) * s.height * s.width;
    const Dtype* w = weights + static_cast<int64_t>(c) * kernel_h * kernel_w;
    const int left = x * stride_w - s.pad_w;
    const int top = y * stride_h - s.pad_h;
    Dtype sum[Rows];
#pragma unroll
    for (int r = 0; r < Rows; ++r) { sum[r] = bias == nullptr ? Dtype(0) : __ldg(bias + c); }
    if (K > 0) {
      Dtype kernel[K > 0 ? K * K : 1];
#pragma unroll
      for (int i = 0; i < K * K; ++i) { kernel[i] = __ldg(w + (Rotated ? K * K - 1 - i : i)); }
#pragma unroll
      for (int i = 0; i < (Rows - 1) * S + K; ++i) {
        const int iy = top + i;
        if (iy < 0 || iy >= s.height) { continue; }
        const Dtype* line = in + static_cast<int64_t>(iy) * s.width;
#pragma unroll
        for (int j = 0; j < K; ++j) {
          const int ix = left + j;
          const Dtype value = ix >= 0 && ix < s.width ? __ldg(line + ix) : Dtype(0);
#pragma unroll
          for (int r = 0; r < Rows; ++r) {
            if (i - r * S >= 0 && i - r * S < K) { sum[r] += kernel[(i - r * S) * K + j] * value; }
          }
        }
      }
    } else {
      const int last = kernel_h * kernel_w - 1;
      for (int i = 0; i < kernel_h; ++i) {
        for (int j = 0; j < kernel_w; ++j) {
          const int ix = left + j * dilation_w;
          if (ix < 0 || ix >= s.width) { continue; }
          const int tap = i * kernel_w + j;
          const Dtype weight = __ldg(w + (Rotated ? last - tap : tap));
#pragma unroll
          for (int r = 0; r < Rows; ++r) {
            const int iy = top + r * stride_h + i * dilation_h;
            if (iy >= 0 && iy < s.height) { sum[r] += weight * __ldg(in + static_cast<int64_t>(iy) * s.width + ix); }
          }
        }
      }
    }
    Dtype* out = output + (static_cast<int64_t>(plane) * s.out_height + y) * s.out_width + x;
#pragma unroll
    for (int r = 0; r < Rows; ++r) {
      if (y + r < s.out_height) { out[static_cast<int64_t>(r) * s.out_width] = sum[r]; }
    }
  }
}

/// The kernel positions that connect a position of the input with an output: first, first + step, .. The first one
/// leads to `output`, each next one to an output that is lower by `back`.
struct Meeting {
  int first, step, output, back;
};

__device__ inline Meeting MeetingAt(const int place, const int stride, const int dilation) {
  // place = output * stride + kernel * dilation. Find the smallest kernel position that leaves a multiple of stride; if
  // there is none below stride, there is none at all.
  int kernel = 0;
  while (kernel < stride && (place - kernel * dilation) % stride != 0) { ++kernel; }
  if (kernel == stride) { return {1 << 30, 1, 0, 0}; }
  // Kernel positions that are `step` apart lead to outputs a whole number apart.
  int step = 1;
  while (step * dilation % stride != 0) { ++step; }
  return {kernel, step, (place - kernel * dilation) / stride, step * dilation / stride};
}

template <typename Dtype>
__global__ void DepthwiseGatherKernel(const DepthwiseShape s, const unsigned count, const int channels,
                                      const Dtype* __restrict__ output_diff, const Dtype* __restrict__ weights,
                                      Dtype* __restrict__ input_diff) {
  const unsigned width = s.width, height = s.height;
  for (unsigned at = blockIdx.x * kThreads + threadIdx.x; at < count; at += gridDim.x * kThreads) {
    const unsigned row = at / width;
    const int x = at % width;
    const int y = row % height;
    const int plane = row / height;
    const Dtype* diff = output_diff + static_cast<int64_t>(plane) * s.out_height * s.out_width;
    const Dtype* w = weights + static_cast<int64_t>(plane % channels) * s.kernel_h * s.kernel_w;
    const Meeting my = MeetingAt(y + s.pad_h, s.stride_h, s.dilation_h);
    const Meeting mx = MeetingAt(x + s.pad_w, s.stride_w, s.dilation_w);
    Dtype sum = 0;
    for (int i = my.first, oy = my.output; i < s.kernel_h; i += my.step, oy -= my.back) {
      if (oy < 0 || oy >= s.out_height) { continue; }
      for (int j = mx.first, ox = mx.output; j < s.kernel_w; j += mx.step, ox -= mx.back) {
        if (ox >= 0 && ox < s.out_width) {
          sum += __ldg(w + i * s.kernel_w + j) * __ldg(diff + static_cast<int64_t>(oy) * s.out_width + ox);
        }
      }
    }
    input_diff[at] = sum;
  }
}

/// Tiles of Stride positions along an axis of the input, counted from where padding and position together are a
/// multiple of Stride.
template <int Stride>
__host__ __device__ inline unsigned Tiles(const int size, const int pad) {
  return (size - 1 + pad) / Stride - pad / Stride + 1;
}

/// A thread computes a tile of S x S positions of the input. Along an axis, position p of the tile t lies at
/// t * S + p - pad and takes the kernel positions p, p + S, .. to the outputs t, t - 1, ..: which ones is known when
/// this is compiled, and all positions of the tile read the same outputs.
template <typename Dtype, int K, int S>
__global__ void DepthwiseTilesKernel(const DepthwiseShape s, const unsigned threads, const int channels,
                                     const Dtype* __restrict__ output_diff, const Dtype* __restrict__ weights,
                                     Dtype* __restrict__ input_diff) {
  constexpr int kReach = (K + S - 1) / S;
  const unsigned columns = Tiles<S>(s.width, s.pad_w), rows = Tiles<S>(s.height, s.pad_h);
  for (unsigned at = blockIdx.x * kThreads + threadIdx.x; at < threads; at += gridDim.x * kThreads) {
    const unsigned line = at / columns;
    const int tile_x = at % columns + s.pad_w / S;
    const int tile_y = line % rows + s.pad_h / S;
    const int plane = line / rows;
    const Dtype* diff = output_diff + static_cast<int64_t>(plane) * s.out_height * s.out_width;
    const Dtype* w = weights + static_cast<int64_t>(plane % channels) * K * K;
    Dtype from[kReach][kReach];
#pragma unroll
    for (int a = 0; a < kReach; ++a) {
      const int oy = tile_y - a;
#pragma unroll
      for (int b = 0; b < kReach; ++b) {
        const int ox = tile_x - b;
        const bool inside = oy >= 0 && oy < s.out_height && ox >= 0 && ox < s.out_width;
        from[a][b] = inside ? __ldg(diff + static_cast<int64_t>(oy) * s.out_width + ox) : Dtype(0);
      }
    }
    Dtype* out = input_diff + static_cast<int64_t>(plane) * s.height * s.width;
#pragma unroll
    for (int p = 0; p < S; ++p) {
      const int y = tile_y * S + p - s.pad_h;
#pragma unroll
      for (int q = 0; q < S; ++q) {
        const int x = tile_x * S + q - s.pad_w;
        Dtype sum = 0;
#pragma unroll
        for (int a = 0; a < kReach; ++a) {
#pragma unroll
          for (int b = 0; b < kReach; ++b) {
            if (p + a * S < K && q + b * S < K) { sum += __ldg(w + (p + a * S) * K + q + b * S) * from[a][b]; }
          }
        }
        if (y >= 0 && y < s.height && x >= 0 && x < s.width) { out[static_cast<int64_t>(y) * s.width + x] = sum; }
      }
    }
  }
}

/// parts[share][channel][taps + 1]: the sums over a share of a channel's outputs, that of the bias last. Grid: channels
/// x shares; for K = 0 channels * (taps + 1) x shares, not a third axis, which could hold no more than 65535.
template <typename Dtype, int K, int S>
__global__ void __launch_bounds__(kThreads, PartsBlocks<Dtype>(K))
    DepthwiseWeightPartsKernel(const DepthwiseShape s, const int num, const int channels,
                               const Dtype* __restrict__ input, const Dtype* __restrict__ output_diff,
                               Dtype* __restrict__ parts) {
  const int c = K > 0 ? blockIdx.x : blockIdx.x % channels, share = blockIdx.y, shares = gridDim.y;
  const int taps = K > 0 ? K * K : s.kernel_h * s.kernel_w;
  const unsigned places = s.out_height * s.out_width, count = num * places, width = s.out_width;
  Dtype sum[K > 0 ? K * K + 1 : 1] = {};
  const int tap = K > 0 ? 0 : blockIdx.x / channels;
  const int tap_y = K > 0 ? 0 : tap / s.kernel_w * s.dilation_h, tap_x = K > 0 ? 0 : tap % s.kernel_w * s.dilation_w;
  for (unsigned at = share * kThreads + threadIdx.x; at < count; at += shares * kThreads) {
    const unsigned place = at % places, line = place / width;
    const int64_t plane = static_cast<int64_t>(at / places) * channels + c;
    const Dtype d = __ldg(output_diff + plane * places + place);
    const Dtype* in = input + plane * s.height * s.width;
    const int top = static_cast<int>(line) * (S > 0 ? S : s.stride_h) - s.pad_h;
    const int left = static_cast<int>(place - line * width) * (S > 0 ? S : s.stride_w) - s.pad_w;
    if (K > 0) {
#pragma unroll
      for (int i = 0; i < K; ++i) {
        const int iy = top + i;
        if (iy < 0 || iy >= s.height) { continue; }
#pragma unroll
        for (int j = 0; j < K; ++j) {
          const int ix = left + j;
          if (ix >= 0 && ix < s.width) { sum[i * K + j] += d * __ldg(in + static_cast<int64_t>(iy) * s.width + ix); }
        }
      }
      sum[K > 0 ? K * K : 0] += d;
    } else if (tap == taps) {
      sum[0] += d;
    } else {
      const int iy = top + tap_y, ix = left + tap_x;
      if (iy >= 0 && iy < s.height && ix >= 0 && ix < s.width) {
        sum[0] += d * __ldg(in + static_cast<int64_t>(iy) * s.width + ix);
      }
    }
  }
  Dtype* to = parts + (static_cast<int64_t>(share) * channels + c) * (taps + 1);
  if (K > 0) {
#pragma unroll
    for (int t = 0; t < (K > 0 ? K * K + 1 : 1); ++t) {
      const Dtype total = SumOfBlock<kThreads>(sum[t]);
      if (threadIdx.x == 0) { to[t] = total; }
    }
  } else {
    const Dtype total = SumOfBlock<kThreads>(sum[0]);
    if (threadIdx.x == 0) { to[tap] = total; }
  }
}

template <typename Dtype>
__global__ void DepthwiseWeightSumsKernel(const int channels, const int taps, const int shares,
                                          const Dtype* __restrict__ parts, Dtype* weight_diff, Dtype* bias_diff) {
  const int count = channels * (taps + 1);
  for (int at = blockIdx.x * kThreads + threadIdx.x; at < count; at += gridDim.x * kThreads) {
    const int c = at / (taps + 1), t = at % (taps + 1);
    Dtype* to = t < taps ? weight_diff : bias_diff;
    if (to == nullptr) { continue; }
    Dtype sum = 0;
    for (int share = 0; share < shares; ++share) { sum += parts[static_cast<int64_t>(share) * count + at]; }
    to[t < taps ? c * taps + t : c] += sum;
  }
}

template <typename Dtype, int K, int S, bool Rotated>
void LaunchRows(const DepthwiseShape& s, const int planes, const int channels, const Dtype* input, const Dtype* weights,
                const Dtype* bias, Dtype* output) {
  constexpr int rows = RowsOfThread(S);
  const unsigned threads = planes * ((s.out_height + rows - 1) / rows) * s.out_width;
  if (threads == 0) { return; }
  DepthwiseRowsKernel<Dtype, K, S, rows, Rotated>
      <<<BlockCount(threads), kThreads>>>(s, threads, channels, input, weights, bias, output);
  CUDA_POST_KERNEL_CHECK;
}

/// K * 10 + S for a kernel and stride with unrolled code, else 0.
int Unrolled(const DepthwiseShape& s) {
  const bool square = s.kernel_h == s.kernel_w && s.stride_h == s.stride_w && s.dilation_h == 1 && s.dilation_w == 1;
  return square && s.kernel_h >= 3 && s.kernel_h <= 6 && s.stride_h <= 2 ? s.kernel_h * 10 + s.stride_h : 0;
}

template <typename Dtype>
void ForwardGpu(const DepthwiseShape& s, const int planes, const int channels, const Dtype* input, const Dtype* weights,
                const Dtype* bias, Dtype* output) {
  switch (Unrolled(s)) {
    case 31: return LaunchRows<Dtype, 3, 1, false>(s, planes, channels, input, weights, bias, output);
    case 32: return LaunchRows<Dtype, 3, 2, false>(s, planes, channels, input, weights, bias, output);
    case 41: return LaunchRows<Dtype, 4, 1, false>(s, planes, channels, input, weights, bias, output);
    case 42: return LaunchRows<Dtype, 4, 2, false>(s, planes, channels, input, weights, bias, output);
    case 51: return LaunchRows<Dtype, 5, 1, false>(s, planes, channels, input, weights, bias, output);
    case 52: return LaunchRows<Dtype, 5, 2, false>(s, planes, channels, input, weights, bias, output);
    case 61: return LaunchRows<Dtype, 6, 1, false>(s, planes, channels, input, weights, bias, output);
    case 62: return LaunchRows<Dtype, 6, 2, false>(s, planes, channels, input, weights, bias, output);
    default: return LaunchRows<Dtype, 0, 0, false>(s, planes, channels, input, weights, bias, output);
  }
}

template <typename Dtype>
void LaunchRotated(const DepthwiseShape& s, const int planes, const int channels, const Dtype* diff,
                   const Dtype* weights, Dtype* input_diff) {
  const Dtype* none = nullptr;
  switch (Unrolled(s)) {
    case 31: return LaunchRows<Dtype, 3, 1, true>(s, planes, channels, diff, weights, none, input_diff);
    case 41: return LaunchRows<Dtype, 4, 1, true>(s, planes, channels, diff, weights, none, input_diff);
    case 51: return LaunchRows<Dtype, 5, 1, true>(s, planes, channels, diff, weights, none, input_diff);
    case 61: return LaunchRows<Dtype, 6, 1, true>(s, planes, channels, diff, weights, none, input_diff);
    default: return LaunchRows<Dtype, 0, 0, true>(s, planes, channels, diff, weights, none, input_diff);
  }
}

template <typename Dtype, int K>
void LaunchTiles(const DepthwiseShape& s, const int planes, const int channels, const Dtype* output_diff,
                 const Dtype* weights, Dtype* input_diff) {
  const unsigned threads = planes * Tiles<2>(s.width, s.pad_w) * Tiles<2>(s.height, s.pad_h);
  DepthwiseTilesKernel<Dtype, K, 2>
      <<<BlockCount(threads), kThreads>>>(s, threads, channels, output_diff, weights, input_diff);
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void LaunchGather(const DepthwiseShape& s, const unsigned count, const int channels, const Dtype* output_diff,
                  const Dtype* weights, Dtype* input_diff) {
  DepthwiseGatherKernel<Dtype><<<BlockCount(count), kThreads>>>(s, count, channels, output_diff, weights, input_diff);
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void BackwardDataGpu(const DepthwiseShape& s, const int planes, const int channels, const Dtype* output_diff,
                     const Dtype* weights, Dtype* input_diff) {
  if (s.stride_h == 1 && s.stride_w == 1) {
    DepthwiseShape rotated = s;
    std::swap(rotated.height, rotated.out_height);
    std::swap(rotated.width, rotated.out_width);
    rotated.pad_h = (s.kernel_h - 1) * s.dilation_h - s.pad_h;
    rotated.pad_w = (s.kernel_w - 1) * s.dilation_w - s.pad_w;
    LaunchRotated(rotated, planes, channels, output_diff, weights, input_diff);
    return;
  }
  const unsigned count = planes * s.height * s.width;
  if (count == 0) { return; }
  switch (Unrolled(s)) {
    case 32: return LaunchTiles<Dtype, 3>(s, planes, channels, output_diff, weights, input_diff);
    case 42: return LaunchTiles<Dtype, 4>(s, planes, channels, output_diff, weights, input_diff);
    case 52: return LaunchTiles<Dtype, 5>(s, planes, channels, output_diff, weights, input_diff);
    case 62: return LaunchTiles<Dtype, 6>(s, planes, channels, output_diff, weights, input_diff);
    default: return LaunchGather<Dtype>(s, count, channels, output_diff, weights, input_diff);
  }
}

/// Number of shares of a channel's outputs: some 2000 blocks in all at most, and a few outputs a thread at least.
int WeightShares(const DepthwiseShape& s, const int num, const int channels) {
  const int64_t outputs = static_cast<int64_t>(num) * s.out_height * s.out_width;
  const int64_t by_work = (outputs + 4 * kThreads - 1) / (4 * kThreads);
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(by_work, 2048 / channels + 1)));
}

template <typename Dtype, int K, int S>
void LaunchParts(const DepthwiseShape& s, const int num, const int channels, const int shares, const Dtype* input,
                 const Dtype* output_diff, Dtype* parts) {
  const dim3 grid(K > 0 ? channels : channels * (s.kernel_h * s.kernel_w + 1), shares);
  DepthwiseWeightPartsKernel<Dtype, K, S><<<grid, kThreads>>>(s, num, channels, input, output_diff, parts);
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void BackwardWeightsGpu(const DepthwiseShape& s, const int num, const int channels, const Dtype* input,
                        const Dtype* output_diff, Blob<Dtype>* room, Dtype* weight_diff, Dtype* bias_diff) {
  const int taps = s.kernel_h * s.kernel_w;
  const int shares = WeightShares(s, num, channels);
  room->Reshape({shares, channels, taps + 1});
  Dtype* parts = room->mutable_gpu_data();
  switch (Unrolled(s)) {
    case 31: LaunchParts<Dtype, 3, 1>(s, num, channels, shares, input, output_diff, parts); break;
    case 32: LaunchParts<Dtype, 3, 2>(s, num, channels, shares, input, output_diff, parts); break;
    case 41: LaunchParts<Dtype, 4, 1>(s, num, channels, shares, input, output_diff, parts); break;
    case 42: LaunchParts<Dtype, 4, 2>(s, num, channels, shares, input, output_diff, parts); break;
    case 51: LaunchParts<Dtype, 5, 1>(s, num, channels, shares, input, output_diff, parts); break;
    case 52: LaunchParts<Dtype, 5, 2>(s, num, channels, shares, input, output_diff, parts); break;
    case 61: LaunchParts<Dtype, 6, 1>(s, num, channels, shares, input, output_diff, parts); break;
    case 62: LaunchParts<Dtype, 6, 2>(s, num, channels, shares, input, output_diff, parts); break;
    default: LaunchParts<Dtype, 0, 0>(s, num, channels, shares, input, output_diff, parts);
  }
  DepthwiseWeightSumsKernel<Dtype>
      <<<BlockCount(channels * (taps + 1)), kThreads>>>(channels, taps, shares, parts, weight_diff, bias_diff);
  CUDA_POST_KERNEL_CHECK;
}

}  // namespace

template <typename Dtype>
void DepthwiseConvolutionLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                                                   const vector<Blob<Dtype>*>& top) {
  if (!is_depthwise_) {
    ConvolutionLayer<Dtype>::Forward_gpu(bottom, top);
    return;
  }
  const Dtype* bias = this->bias_term_ ? this->blobs_[1]->gpu_data() : nullptr;
  for (int i = 0; i < bottom.size(); ++i) {
    ForwardGpu(shape_, this->num_ * this->channels_, this->channels_, bottom[i]->gpu_data(),
               this->blobs_[0]->gpu_data(), bias, top[i]->mutable_gpu_data());
  }
}

template <typename Dtype>
void DepthwiseConvolutionLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                                    const vector<Blob<Dtype>*>& bottom) {
  if (!is_depthwise_) {
    ConvolutionLayer<Dtype>::Backward_gpu(top, propagate_down, bottom);
    return;
  }
  const bool for_weights = this->param_propagate_down_[0];
  const bool for_bias = this->bias_term_ && this->param_propagate_down_[1];
  for (int i = 0; i < top.size(); ++i) {
    const Dtype* top_diff = top[i]->gpu_diff();
    if (for_weights || for_bias) {
      BackwardWeightsGpu(shape_, this->num_, this->channels_, bottom[i]->gpu_data(), top_diff, &weight_parts_,
                         for_weights ? this->blobs_[0]->mutable_gpu_diff() : nullptr,
                         for_bias ? this->blobs_[1]->mutable_gpu_diff() : nullptr);
    }
    if (propagate_down[i]) {
      BackwardDataGpu(shape_, this->num_ * this->channels_, this->channels_, top_diff, this->blobs_[0]->gpu_data(),
                      bottom[i]->mutable_gpu_diff());
    }
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(DepthwiseConvolutionLayer);

}  // namespace caffe
