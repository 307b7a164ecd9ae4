#include <vector>

#include "caffe/layers/hardswish_layer.hpp"
#include "caffe/util/pointwise.cuh"

namespace caffe {

template <typename Dtype>
void HardSwishLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  this->KeepInput(bottom, top);
  PointwiseForwardGpu(bottom[0]->count(), bottom[0]->gpu_data(), top[0]->mutable_gpu_data(), HardSwishOp<Dtype>());
}

template <typename Dtype>
void HardSwishLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                         const vector<Blob<Dtype>*>& bottom) {
  if (propagate_down[0]) {
    PointwiseBackwardGpu(bottom[0]->count(), this->Input(bottom, top).gpu_data(), top[0]->gpu_diff(),
                         bottom[0]->mutable_gpu_diff(), HardSwishOp<Dtype>());
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(HardSwishLayer);

}  // namespace caffe
