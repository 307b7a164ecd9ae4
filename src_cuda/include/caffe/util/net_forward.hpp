#ifndef CAFFE_UTIL_NET_FORWARD_HPP_
#define CAFFE_UTIL_NET_FORWARD_HPP_

#include <vector>

#include "caffe/layer.hpp"

namespace caffe {

/// A whole forward pass on the CPU of layers of which no Backward will be called; returns the loss. What Backward would
/// need is not kept.
template <typename Dtype>
Dtype ForwardWhole(const std::vector<shared_ptr<Layer<Dtype>>>& layers,
                   const std::vector<std::vector<Blob<Dtype>*>>& bottoms,
                   const std::vector<std::vector<Blob<Dtype>*>>& tops);

}  // namespace caffe

#endif  // CAFFE_UTIL_NET_FORWARD_HPP_
