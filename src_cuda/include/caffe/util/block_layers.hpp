#ifndef CAFFE_UTIL_BLOCK_LAYERS_HPP_
#define CAFFE_UTIL_BLOCK_LAYERS_HPP_

#include <vector>

#include "caffe/layer.hpp"
#include "caffe/util/channel_blocks.hpp"

namespace caffe {

/// The forward pass of a layer whose first bottom is in blocks of channels, digit by digit that of its Forward_cpu in
/// phase TEST: global average pooling, Scale along the channels (with a second bottom too), BatchNorm with stored
/// statistics, Permute to N x H x W x C. Bottoms and tops have their shapes. False, and nothing is done, for other
/// layers and settings.
template <typename Dtype>
bool ForwardOfBlocks(Layer<Dtype>* layer, const std::vector<Blob<Dtype>*>& bottom,
                     const std::vector<Blob<Dtype>*>& top);

}  // namespace caffe

#endif  // CAFFE_UTIL_BLOCK_LAYERS_HPP_
