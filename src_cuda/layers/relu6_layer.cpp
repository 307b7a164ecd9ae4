#include "caffe/layers/relu6_layer.hpp"

#include <vector>

namespace caffe {

template <typename Dtype>
void ReLU6Layer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  NeuronLayer<Dtype>::LayerSetUp(bottom, top);
  const ReLU6Parameter& param = this->layer_param_.relu6_param();
  op_.negative_slope = param.negative_slope();
  op_.threshold = param.threshold();
  CHECK_GE(param.negative_slope(), 0) << "ReLU6 layer " << this->layer_param_.name() << ": negative_slope is "
                                      << param.negative_slope() << ", must be 0 or more.";
  CHECK_GT(param.threshold(), 0) << "ReLU6 layer " << this->layer_param_.name() << ": threshold is "
                                 << param.threshold() << ", must be above 0.";
}

template <typename Dtype>
void ReLU6Layer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  PointwiseForward(bottom[0]->count(), bottom[0]->cpu_data(), top[0]->mutable_cpu_data(), op_);
}

template <typename Dtype>
void ReLU6Layer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                     const vector<Blob<Dtype>*>& bottom) {
  if (propagate_down[0]) {
    // In place this is y, which is in the same interval as x.
    PointwiseBackward(bottom[0]->count(), bottom[0]->cpu_data(), top[0]->cpu_diff(), bottom[0]->mutable_cpu_diff(),
                      op_);
  }
}

#ifdef CPU_ONLY
STUB_GPU(ReLU6Layer);
#endif

INSTANTIATE_CLASS(ReLU6Layer);
REGISTER_LAYER_CLASS(ReLU6);

}  // namespace caffe
