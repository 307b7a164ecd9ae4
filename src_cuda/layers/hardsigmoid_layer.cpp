#include "caffe/layers/hardsigmoid_layer.hpp"

#include <vector>

namespace caffe {

template <typename Dtype>
void HardSigmoidLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  NeuronLayer<Dtype>::LayerSetUp(bottom, top);
  op_.alpha = this->layer_param_.hardsigmoid_param().alpha();
  op_.beta = this->layer_param_.hardsigmoid_param().beta();
}

template <typename Dtype>
void HardSigmoidLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  PointwiseForward(bottom[0]->count(), bottom[0]->cpu_data(), top[0]->mutable_cpu_data(), op_);
}

template <typename Dtype>
void HardSigmoidLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                           const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) { return; }
  const int count = bottom[0]->count();
  const Dtype* data = bottom[0]->cpu_data();
  Dtype* diff = bottom[0]->mutable_cpu_diff();
  if (bottom[0] == top[0]) {
    const HardSigmoidFromTopOp<Dtype> from_top = {op_.alpha};
    PointwiseBackward(count, data, top[0]->cpu_diff(), diff, from_top);
  } else {
    PointwiseBackward(count, data, top[0]->cpu_diff(), diff, op_);
  }
}

#ifdef CPU_ONLY
STUB_GPU(HardSigmoidLayer);
#endif

INSTANTIATE_CLASS(HardSigmoidLayer);
REGISTER_LAYER_CLASS(HardSigmoid);

}  // namespace caffe
