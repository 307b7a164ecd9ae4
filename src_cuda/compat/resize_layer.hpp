// Force-included into the fork's resize_layer.cpp alone. What that layer calls ResizeParameter (LayerParameter field
// 251) is ResizeLayerParameter in our caffe.proto, where ResizeParameter is the SSD branch's message of the data
// transformer. The header of the messages comes first, so that the macro renames what the layer uses and not the
// messages.
#ifndef SSDLITE_CAFFE_COMPAT_RESIZE_LAYER_HPP_
#define SSDLITE_CAFFE_COMPAT_RESIZE_LAYER_HPP_

#include "caffe/proto/caffe.pb.h"

#define ResizeParameter ResizeLayerParameter

#endif  // SSDLITE_CAFFE_COMPAT_RESIZE_LAYER_HPP_
