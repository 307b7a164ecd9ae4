#include "caffe/util/channel_blocks.hpp"

#include <algorithm>

#include <boost/make_shared.hpp>

#include "caffe/util/parallel.hpp"

namespace caffe {

namespace {

/// Values that one thread moves at a time.
constexpr int kGrain = 1 << 15;

}  // namespace

template <typename Dtype>
ChannelBlocks<Dtype>::ChannelBlocks(const int num, const int channels, const int height, const int width)
    : num_(num), shape_{nullptr, channels, height, width} {
  constexpr size_t line = 64;
  const size_t bytes = (count() * sizeof(Dtype) + line - 1) / line * line;
  values_.reset(static_cast<Dtype*>(aligned_alloc(line, std::max(bytes, line))));
  CHECK(values_ != nullptr) << "There are no " << bytes << " bytes of memory left.";
}

template <typename Dtype>
bool ChannelBlocks<Dtype>::HasShape(const Blob<Dtype>& blob) const {
  return blob.num_axes() == 4 && blob.shape(0) == num_ && blob.shape(1) == shape_.channels &&
         blob.shape(2) == shape_.height && blob.shape(3) == shape_.width;
}

template <typename Dtype>
void ChannelBlocks<Dtype>::WriteTo(void* values) const {
  Dtype* planes = static_cast<Dtype*>(values);
  constexpr int kLanes = SimdLanes<Dtype>();
  const int size = shape_.pixels(), in_image = shape_.blocks(), channels = shape_.channels, all = num_ * in_image;
  ParallelFor(all, 1 + kGrain / std::max(1, size * kLanes), [&](const int begin, const int end) {
    for (int i = begin; i < end; ++i) {
      const int first = i % in_image * kLanes, some = std::min(kLanes, channels - first);
      const Dtype* from = values_.get() + i * shape_.block_size();
      Dtype* to = planes + (static_cast<size_t>(i / in_image) * channels + first) * size;
      int lane = 0;
      for (; lane + 4 <= some; lane += 4) {
        int p = 0;
        for (; p + 4 <= size; p += 4) {
          SimdTranspose(from + p * kLanes + lane, kLanes, to + static_cast<size_t>(lane) * size + p, size);
        }
        for (; p < size; ++p) {
          for (int l = lane; l < lane + 4; ++l) { to[static_cast<size_t>(l) * size + p] = from[p * kLanes + l]; }
        }
      }
      for (; lane < some; ++lane) {
        for (int p = 0; p < size; ++p) { to[static_cast<size_t>(lane) * size + p] = from[p * kLanes + lane]; }
      }
    }
  });
}

template <typename Dtype>
void ChannelBlocks<Dtype>::ReadFrom(const Dtype* planes) {
  constexpr int kLanes = SimdLanes<Dtype>();
  const int size = shape_.pixels(), in_image = shape_.blocks(), channels = shape_.channels, all = num_ * in_image;
  ParallelFor(all, 1 + kGrain / std::max(1, size * kLanes), [&](const int begin, const int end) {
    for (int i = begin; i < end; ++i) {
      const int first = i % in_image * kLanes, some = std::min(kLanes, channels - first);
      const Dtype* from = planes + (static_cast<size_t>(i / in_image) * channels + first) * size;
      Dtype* to = values_.get() + i * shape_.block_size();
      int lane = 0;
      for (; lane + 4 <= some; lane += 4) {
        int p = 0;
        for (; p + 4 <= size; p += 4) {
          SimdTranspose(from + static_cast<size_t>(lane) * size + p, size, to + p * kLanes + lane, kLanes);
        }
        for (; p < size; ++p) {
          for (int l = lane; l < lane + 4; ++l) { to[p * kLanes + l] = from[static_cast<size_t>(l) * size + p]; }
        }
      }
      for (; lane < kLanes; ++lane) {
        for (int p = 0; p < size; ++p) {
          to[p * kLanes + lane] = lane < some ? from[static_cast<size_t>(lane) * size + p] : Dtype(0);
        }
      }
    }
  });
}

template <typename Dtype>
bool HasBlocks(const Blob<Dtype>& blob) {
  if (blob.count() == 0) { return false; }  // it may have no memory
  const auto blocks = dynamic_cast<const ChannelBlocks<Dtype>*>(blob.data()->deferred().get());
  return blocks != nullptr && blocks->HasShape(blob);
}

template <typename Dtype>
shared_ptr<const ChannelBlocks<Dtype>> BlocksOf(const Blob<Dtype>& blob) {
  typedef ChannelBlocks<Dtype> Blocks;
  if (HasBlocks(blob)) { return boost::static_pointer_cast<const Blocks>(blob.data()->deferred()); }
  const auto made = boost::make_shared<Blocks>(blob.shape(0), blob.shape(1), blob.shape(2), blob.shape(3));
  made->ReadFrom(blob.cpu_data());
  // Who has a pointer to the blob may write to it: these are for this pass then.
  if (!blob.data()->exposed()) { blob.data()->Defer(made, true); }
  return made;
}

template <typename Dtype>
shared_ptr<ChannelBlocks<Dtype>> NewBlocks(Blob<Dtype>* blob) {
  typedef ChannelBlocks<Dtype> Blocks;
  shared_ptr<Blocks> blocks;
  if (HasBlocks(*blob)) { blocks = boost::static_pointer_cast<Blocks>(blob->data()->deferred()); }
  if (!blocks || blocks->held()) {
    blocks = boost::make_shared<Blocks>(blob->shape(0), blob->shape(1), blob->shape(2), blob->shape(3));
  }
  blob->data()->Defer(blocks);
  return blocks;
}

#define INSTANTIATE_BLOCKS(Dtype)                                                      \
  template class ChannelBlocks<Dtype>;                                                 \
  template bool HasBlocks<Dtype>(const Blob<Dtype>&);                                  \
  template shared_ptr<const ChannelBlocks<Dtype>> BlocksOf<Dtype>(const Blob<Dtype>&); \
  template shared_ptr<ChannelBlocks<Dtype>> NewBlocks<Dtype>(Blob<Dtype>*)
INSTANTIATE_BLOCKS(float);
INSTANTIATE_BLOCKS(double);

}  // namespace caffe
