#ifndef CAFFE_UTIL_BLOCK_LAYERS_HPP_
#define CAFFE_UTIL_BLOCK_LAYERS_HPP_

#include <functional>
#include <vector>

#include "caffe/layer.hpp"

namespace caffe {

/// Computes image n of a layer's tops.
typedef std::function<void(int n)> ImagePass;

/// Whether PassOfBlocks may compute the layer: global average pooling, Scale, BatchNorm, Permute.
template <typename Dtype>
bool KnowsBlocks(const Layer<Dtype>& layer);

/// The forward pass of such a layer, whose first bottom is in blocks of channels; its tops get the bits that its
/// Forward_cpu gives them. Null, and nothing is done, if the settings are others than these: Scale along the channels
/// (with a second bottom too), BatchNorm with stored statistics, Permute to N x H x W x C.
///
/// Bottoms and top have their shapes. Values are read and written when the pass is called; parameters of the layer are
/// read at once. What Backward would need is not kept.
template <typename Dtype>
ImagePass PassOfBlocks(Layer<Dtype>* layer, const std::vector<Blob<Dtype>*>& bottom, Blob<Dtype>* top);

}  // namespace caffe

#endif  // CAFFE_UTIL_BLOCK_LAYERS_HPP_
