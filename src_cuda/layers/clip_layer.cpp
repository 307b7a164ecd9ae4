#include "caffe/layers/clip_layer.hpp"

#include <vector>

namespace caffe {

template <typename Dtype>
void ClipLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  InputKeepingLayer<Dtype>::LayerSetUp(bottom, top);
  op_.low = this->layer_param_.clip_param().min();
  op_.high = this->layer_param_.clip_param().max();
  CHECK_LE(op_.low, op_.high) << "Clip layer " << this->layer_param_.name() << ": min is " << op_.low
                              << ", must not be above max, " << op_.high << ".";
}

template <typename Dtype>
void ClipLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  this->KeepInput(bottom, top);
  PointwiseForward(bottom[0]->count(), bottom[0]->cpu_data(), top[0]->mutable_cpu_data(), op_);
}

template <typename Dtype>
void ClipLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                    const vector<Blob<Dtype>*>& bottom) {
  if (propagate_down[0]) {
    PointwiseBackward(bottom[0]->count(), this->Input(bottom, top).cpu_data(), top[0]->cpu_diff(),
                      bottom[0]->mutable_cpu_diff(), op_);
  }
}

#ifdef CPU_ONLY
STUB_GPU(ClipLayer);
#endif

INSTANTIATE_CLASS(ClipLayer);
REGISTER_LAYER_CLASS(Clip);

}  // namespace caffe
