#ifndef CAFFE_UTIL_BLOCK_CONV_HPP_
#define CAFFE_UTIL_BLOCK_CONV_HPP_

#include "caffe/util/bounds.hpp"
#include "caffe/util/packed_weights.hpp"
#include "caffe/util/plane_shape.hpp"

/**
 * Convolutions whose outputs are in blocks of channels (channel_blocks.hpp). Each output is the sum that the layers by
 * themselves compute, in the same order: the bias, then channel by channel and tap by tap.
 */
namespace caffe {

template <typename Dtype>
struct ImageBlocks;  // not its header, which nvcc cannot read

/// A convolution over two spatial axes, of one group, or with one kernel a channel.
template <typename Dtype>
struct BlockConv {
  bool depthwise;
  PlaneShape shape;
  int channels, outputs;
  shared_ptr<const PackedWeights<Dtype>> packed;
};

/// The image that a convolution reads. In a blob's order, alone or as PadPlanes writes it, not for a depthwise one.
template <typename Dtype>
struct ConvInput {
  enum Order { BLOCKS, PLANES, PADDED_PLANES };
  const Dtype* values;
  Order order;
};

/// What becomes of the sums of a convolution.
template <typename Dtype>
struct AfterConv {
  /// min(max(x, low), high) of the sums; of x + shift with a hard swish.
  Bounds<Dtype> bounds;
  /// (x min(max(x + shift, low), high)) factor, with x the sum.
  bool swish = false;
  Dtype shift = 0, factor = 1;
};

/// Whether the functions below compute it, without much more memory than the maps have.
template <typename Dtype>
bool IsBlockConv(const BlockConv<Dtype>& conv);

/// An image in a blob's order with the padding that the convolution reads: PaddedSize values.
template <typename Dtype>
size_t PaddedSize(const BlockConv<Dtype>& conv);
template <typename Dtype>
void PadPlanes(const BlockConv<Dtype>& conv, const Dtype* image, Dtype* to);

/// An image. add: values in blocks, as many as the output has, that are added to the sums, of which then nothing else
/// becomes; null if there are none, and of a depthwise convolution.
template <typename Dtype>
void ConvToBlocks(const BlockConv<Dtype>& conv, const ConvInput<Dtype>& input, const AfterConv<Dtype>& after,
                  const Dtype* add, const ImageBlocks<Dtype>& output);

/// `first`, which is not depthwise, and `second`, which is. A few channels and rows of what is between them are in
/// memory at a time, and only for so long: it stays in the caches.
template <typename Dtype>
void ConvAndDepthwise(const BlockConv<Dtype>& first, const ConvInput<Dtype>& input, const AfterConv<Dtype>& after_first,
                      const BlockConv<Dtype>& second, const AfterConv<Dtype>& after_second,
                      const ImageBlocks<Dtype>& output);

}  // namespace caffe

#endif  // CAFFE_UTIL_BLOCK_CONV_HPP_
