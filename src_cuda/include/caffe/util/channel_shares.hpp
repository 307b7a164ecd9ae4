#ifndef CAFFE_UTIL_CHANNEL_SHARES_HPP_
#define CAFFE_UTIL_CHANNEL_SHARES_HPP_

#include <algorithm>
#include <cstdint>

namespace caffe {

/// Threads of a block that sums over a channel (channel_sums.cuh).
constexpr int kSumThreads = 256;

/// Blocks that share a channel: enough in all to fill a GPU, and eight values a thread at least.
inline int ChannelShares(const int num, const int channels, const int size) {
  const int64_t count = static_cast<int64_t>(num) * size;
  const int64_t by_work = (count + 8 * kSumThreads - 1) / (8 * kSumThreads);
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(by_work, 4096 / std::max(1, channels) + 1)));
}

}  // namespace caffe

#endif  // CAFFE_UTIL_CHANNEL_SHARES_HPP_
