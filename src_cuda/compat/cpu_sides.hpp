// Force-included into the fork's layers without a .cu of their own: on a GPU they run their CPU code, as Caffe's Layer
// does for layers that declare no GPU code.
#ifndef SSDLITE_CAFFE_COMPAT_CPU_SIDES_HPP_
#define SSDLITE_CAFFE_COMPAT_CPU_SIDES_HPP_

#include <vector>

#include "caffe/layers/pixelshuffle_layer.hpp"
#include "caffe/layers/upsample_layer.hpp"

#define SSDLITE_CPU_SIDE(Layer)                                                                         \
  template <typename Dtype>                                                                             \
  void Layer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) { \
    this->Forward_cpu(bottom, top);                                                                     \
  }                                                                                                     \
  template <typename Dtype>                                                                             \
  void Layer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,  \
                                  const vector<Blob<Dtype>*>& bottom) {                                 \
    this->Backward_cpu(top, propagate_down, bottom);                                                    \
  }

namespace caffe {

SSDLITE_CPU_SIDE(PixelShuffleLayer)
SSDLITE_CPU_SIDE(UpsampleLayer)

}  // namespace caffe

#undef SSDLITE_CPU_SIDE

#endif  // SSDLITE_CAFFE_COMPAT_CPU_SIDES_HPP_
