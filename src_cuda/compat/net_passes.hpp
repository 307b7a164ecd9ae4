// Force-included into net.cpp: these functions are those of util/net_passes.cpp and util/net_weights.cpp, which do
// what the fork's do.
#ifndef SSDLITE_CAFFE_COMPAT_NET_PASSES_HPP_
#define SSDLITE_CAFFE_COMPAT_NET_PASSES_HPP_

#include "caffe/net.hpp"

namespace caffe {

template <>
float Net<float>::ForwardFromTo(int start, int end);
template <>
double Net<double>::ForwardFromTo(int start, int end);
template <>
void Net<float>::BackwardFromTo(int start, int end);
template <>
void Net<double>::BackwardFromTo(int start, int end);
template <>
void Net<float>::CopyTrainedLayersFrom(const NetParameter& param);
template <>
void Net<double>::CopyTrainedLayersFrom(const NetParameter& param);

}  // namespace caffe

#endif  // SSDLITE_CAFFE_COMPAT_NET_PASSES_HPP_
