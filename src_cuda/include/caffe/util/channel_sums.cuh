#ifndef CAFFE_UTIL_CHANNEL_SUMS_CUH_
#define CAFFE_UTIL_CHANNEL_SUMS_CUH_

#include "caffe/common.hpp"
#include "caffe/util/block_sum.cuh"
#include "caffe/util/channel_shares.hpp"

// Sums over each channel of blobs num x channels x size on the GPU, in one pass over the values.
//
// A block adds up a share of a channel, each thread in registers, then the block by shuffles; a second kernel adds the
// shares in a fixed order and does with the sums what is to be done. There are no atomics: a run can be repeated
// exactly.
namespace caffe {

/// parts[share][sum][channel]. Grid: channels x shares. op(channel, index, sums) adds what the value at `index` adds.
template <typename Dtype, int Sums, typename Op>
__global__ void ChannelPartsKernel(const int num, const int channels, const int size, const Op op,
                                   Dtype* __restrict__ parts) {
  const int c = blockIdx.x, step = gridDim.y * kSumThreads;
  const int step_n = step / size, step_i = step % size;
  Dtype sums[Sums] = {};
  int n = (blockIdx.y * kSumThreads + threadIdx.x) / size;
  int i = (blockIdx.y * kSumThreads + threadIdx.x) % size;
  while (n < num) {
    op(c, (n * channels + c) * size + i, sums);
    n += step_n;
    i += step_i;
    if (i >= size) {
      i -= size;
      ++n;
    }
  }
#pragma unroll
  for (int t = 0; t < Sums; ++t) {
    const Dtype total = SumOfBlock<kSumThreads>(sums[t]);
    if (threadIdx.x == 0) { parts[(blockIdx.y * Sums + t) * channels + c] = total; }
  }
}

template <typename Dtype, int Sums, typename Finish>
__global__ void ChannelFinishKernel(const int channels, const int shares, const Dtype* __restrict__ parts,
                                    const Finish finish) {
  const int c = blockIdx.x * kSumThreads + threadIdx.x;
  if (c >= channels) { return; }
  double totals[Sums] = {};
  for (int share = 0; share < shares; ++share) {
#pragma unroll
    for (int t = 0; t < Sums; ++t) { totals[t] += parts[(share * Sums + t) * channels + c]; }
  }
  finish(c, totals);
}

/// Sums over each channel, and finish(channel, totals) for each, in one thread.
///
/// `parts` has room for ChannelShares(..) * Sums * channels values.
template <typename Dtype, int Sums, typename Op, typename Finish>
void SumChannels(const int num, const int channels, const int size, const Op& op, const Finish& finish, Dtype* parts) {
  const int shares = ChannelShares(num, channels, size);
  // NOLINT_NEXT_LINE(whitespace/operators)
  ChannelPartsKernel<Dtype, Sums><<<dim3(channels, shares), kSumThreads>>>(num, channels, size, op, parts);
  CUDA_POST_KERNEL_CHECK;
  // NOLINT_NEXT_LINE(whitespace/operators)
  ChannelFinishKernel<Dtype, Sums>
      <<<(channels + kSumThreads - 1) / kSumThreads, kSumThreads>>>(channels, shares, parts, finish);
  CUDA_POST_KERNEL_CHECK;
}

/// op(channel, i) for every value i of a blob of `count` values, channels x size in each image.
template <typename Op>
__global__ void EachOfChannelKernel(const unsigned count, const unsigned channels, const unsigned size, const Op op) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) { op(i / size % channels, i); }
}

template <typename Op>
void EachOfChannel(const int count, const int channels, const int size, const Op& op) {
  if (count == 0) { return; }
  // NOLINT_NEXT_LINE(whitespace/operators)
  EachOfChannelKernel<<<(count - 1) / CAFFE_CUDA_NUM_THREADS + 1, CAFFE_CUDA_NUM_THREADS>>>(count, channels, size, op);
  CUDA_POST_KERNEL_CHECK;
}

/// What the value at an index adds to the sums of a, and of a * b.
template <typename Dtype>
struct SumAndProduct {
  const Dtype* a;
  const Dtype* b;
  __device__ void operator()(int, const int i, Dtype* sums) const {
    const Dtype value = __ldg(a + i);
    sums[0] += value;
    sums[1] += value * __ldg(b + i);
  }
};

}  // namespace caffe

#endif  // CAFFE_UTIL_CHANNEL_SUMS_CUH_
