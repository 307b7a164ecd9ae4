#include "caffe/layers/hardswish_layer.hpp"

#include <vector>

namespace caffe {

template <typename Dtype>
void HardSwishLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  this->KeepInput(bottom, top);
  PointwiseForward(bottom[0]->count(), bottom[0]->cpu_data(), top[0]->mutable_cpu_data(), HardSwishOp<Dtype>());
}

template <typename Dtype>
void HardSwishLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                         const vector<Blob<Dtype>*>& bottom) {
  if (propagate_down[0]) {
    PointwiseBackward(bottom[0]->count(), this->Input(bottom, top).cpu_data(), top[0]->cpu_diff(),
                      bottom[0]->mutable_cpu_diff(), HardSwishOp<Dtype>());
  }
}

#ifdef CPU_ONLY
STUB_GPU(HardSwishLayer);
#endif

INSTANTIATE_CLASS(HardSwishLayer);
REGISTER_LAYER_CLASS(HardSwish);

}  // namespace caffe
