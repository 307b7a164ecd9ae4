#ifndef CAFFE_UTIL_BLOCK_SUM_CUH_
#define CAFFE_UTIL_BLOCK_SUM_CUH_

#include "caffe/common.hpp"

namespace caffe {

/// Sum over a block of `Threads` threads, by shuffles, in its thread 0. All threads have to call it.
template <int Threads, typename Dtype>
__device__ Dtype SumOfBlock(Dtype value) {
  constexpr int kWarp = 32;
  __shared__ Dtype of_warp[Threads / kWarp];
  for (int apart = kWarp / 2; apart > 0; apart /= 2) { value += __shfl_down_sync(0xffffffffu, value, apart); }
  __syncthreads();  // threads may still read the shared values of the sum before
  if (threadIdx.x % kWarp == 0) { of_warp[threadIdx.x / kWarp] = value; }
  __syncthreads();
  if (threadIdx.x < kWarp) {
    value = threadIdx.x < Threads / kWarp ? of_warp[threadIdx.x] : Dtype(0);
    for (int apart = Threads / kWarp / 2; apart > 0; apart /= 2) {
      value += __shfl_down_sync(0xffffffffu, value, apart);
    }
  }
  return value;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_BLOCK_SUM_CUH_
