#include <vector>

#include "caffe/layers/maxunpool_layer.hpp"

namespace caffe {

// The fork declares these two for the GPU without code. They run on the CPU, as
// Layer does for layers that declare none.

template <typename Dtype>
void MaxUnPoolLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  this->Forward_cpu(bottom, top);
}

template <typename Dtype>
void MaxUnPoolLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                         const vector<Blob<Dtype>*>& bottom) {
  this->Backward_cpu(top, propagate_down, bottom);
}

INSTANTIATE_LAYER_GPU_FUNCS(MaxUnPoolLayer);

}  // namespace caffe
