#ifndef CAFFE_UTIL_CONV_CHAIN_HPP_
#define CAFFE_UTIL_CONV_CHAIN_HPP_

#include <vector>

#include "caffe/syncedmem.hpp"
#include "caffe/util/block_conv.hpp"
#include "caffe/util/channel_blocks.hpp"

/**
 * Convolutions that follow each other and are computed together, so that what is between them stays in the caches: one
 * that is not depthwise, one that is, and one that is not, or a part of these three that belongs together.
 */
namespace caffe {

template <typename Dtype>
struct ConvPart {
  BlockConv<Dtype> conv;
  AfterConv<Dtype> after;
};

template <typename Dtype>
using ConvChain = std::vector<ConvPart<Dtype>>;

/// An image. add, output: of the last convolution, as in ConvToBlocks.
template <typename Dtype>
void RunChain(const ConvChain<Dtype>& chain, const ConvInput<Dtype>& input, const Dtype* add,
              const ImageBlocks<Dtype>& output);

/// The images that a chain reads: one of three.
template <typename Dtype>
struct ConvImages {
  int num;
  shared_ptr<const ChannelBlocks<Dtype>> blocks;
  shared_ptr<std::vector<Dtype>> padded;  // a copy, as PadPlanes makes it
  const Dtype* values = nullptr;          // of a blob

  /// first: the chain's first convolution.
  ConvInput<Dtype> Image(const BlockConv<Dtype>& first, const int n) const {
    if (blocks) { return {blocks->Image(n).values, ConvInput<Dtype>::BLOCKS}; }
    if (padded) { return {padded->data() + n * PaddedSize(first), ConvInput<Dtype>::PADDED_PLANES}; }
    const size_t size = static_cast<size_t>(first.channels) * first.shape.height * first.shape.width;
    return {values + n * size, ConvInput<Dtype>::PLANES};
  }
};

/// What a convolution and its activation make: the sums; min(max(x + shift, low), high) of them, which is between the
/// layers of a hard swish; the result.
enum class ConvValues { SUMS, RAMP, RESULT };

/// What the last convolution of a chain makes, if somebody asks.
template <typename Dtype>
class NotKept : public DeferredValues {
 public:
  /// images: not `values`, which others may write.
  NotKept(const shared_ptr<const ConvChain<Dtype>>& chain, const ConvImages<Dtype>& images, ConvValues values);
  ~NotKept() override;

  void WriteTo(void* values) const override;
  const ConvImages<Dtype>& images() const { return images_; }

 private:
  const shared_ptr<const ConvChain<Dtype>> chain_;
  const ConvImages<Dtype> images_;
  const ConvValues values_;
};

}  // namespace caffe

#endif  // CAFFE_UTIL_CONV_CHAIN_HPP_
