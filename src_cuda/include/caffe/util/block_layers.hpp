#ifndef CAFFE_UTIL_BLOCK_LAYERS_HPP_
#define CAFFE_UTIL_BLOCK_LAYERS_HPP_

#include <functional>
#include <vector>

#include "caffe/layer.hpp"

namespace caffe {

/// Computes image n of a layer's tops.
typedef std::function<void(int n)> ImagePass;

/// The forward pass of a layer whose first bottom is in blocks of channels, digit by digit that of its Forward_cpu in
/// phase TEST: global average pooling, Scale along the channels (with a second bottom too), BatchNorm with stored
/// statistics, Permute to N x H x W x C. Null, and nothing is done, for other layers and settings.
///
/// Bottoms and tops have their shapes. Values are read and written when the pass is called; parameters of the layer are
/// read at once.
template <typename Dtype>
ImagePass PassOfBlocks(Layer<Dtype>* layer, const std::vector<Blob<Dtype>*>& bottom,
                       const std::vector<Blob<Dtype>*>& top);

}  // namespace caffe

#endif  // CAFFE_UTIL_BLOCK_LAYERS_HPP_
