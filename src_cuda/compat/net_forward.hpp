// Force-included into net.cpp: Net::ForwardFromTo is that of util/net_forward.cpp, which computes what the fork's does.
#ifndef SSDLITE_CAFFE_COMPAT_NET_FORWARD_HPP_
#define SSDLITE_CAFFE_COMPAT_NET_FORWARD_HPP_

#include "caffe/net.hpp"

namespace caffe {

template <>
float Net<float>::ForwardFromTo(int start, int end);
template <>
double Net<double>::ForwardFromTo(int start, int end);

}  // namespace caffe

#endif  // SSDLITE_CAFFE_COMPAT_NET_FORWARD_HPP_
