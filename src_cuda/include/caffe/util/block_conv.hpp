#ifndef CAFFE_UTIL_BLOCK_CONV_HPP_
#define CAFFE_UTIL_BLOCK_CONV_HPP_

#include "caffe/util/bounds.hpp"
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
  const Dtype* weights;  // outputs x (channels, depthwise: 1) x kernel_h x kernel_w
  const Dtype* bias;     // may be null
};

/// What becomes of the sums of a convolution.
template <typename Dtype>
struct AfterConv {
  /// min(max(x, low), high) of the sums; of x + shift with a hard swish.
  Bounds<Dtype> bounds;
  /// (x min(max(x + shift, low), high)) factor, with x the sum, which is stored too.
  bool swish = false;
  Dtype shift = 0, factor = 1;
};

/// Whether the functions below compute it, without much more memory than the maps have.
template <typename Dtype>
bool IsBlockConv(const BlockConv<Dtype>& conv);

/// An image. `sums`: where the sums go that become a hard swish; without values they are not kept.
template <typename Dtype>
void ConvOfBlocks(const BlockConv<Dtype>& conv, const ImageBlocks<const Dtype>& input, const AfterConv<Dtype>& after,
                  const ImageBlocks<Dtype>& sums, const ImageBlocks<Dtype>& output);

/// The same for an input of few channels in a blob's order. Not for a depthwise convolution.
template <typename Dtype>
void ConvOfPlanes(const BlockConv<Dtype>& conv, const Dtype* input, const AfterConv<Dtype>& after,
                  const ImageBlocks<Dtype>& sums, const ImageBlocks<Dtype>& output);

}  // namespace caffe

#endif  // CAFFE_UTIL_BLOCK_CONV_HPP_
