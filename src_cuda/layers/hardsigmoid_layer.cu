#include <vector>

#include "caffe/layers/hardsigmoid_layer.hpp"
#include "caffe/util/pointwise.cuh"

namespace caffe {

template <typename Dtype>
void HardSigmoidLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  PointwiseForwardGpu(bottom[0]->count(), bottom[0]->gpu_data(), top[0]->mutable_gpu_data(), op_);
}

template <typename Dtype>
void HardSigmoidLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                           const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) { return; }
  const int count = bottom[0]->count();
  const Dtype* data = bottom[0]->gpu_data();
  Dtype* diff = bottom[0]->mutable_gpu_diff();
  if (bottom[0] == top[0]) {
    const HardSigmoidFromTopOp<Dtype> from_top = {op_.alpha};
    PointwiseBackwardGpu(count, data, top[0]->gpu_diff(), diff, from_top);
  } else {
    PointwiseBackwardGpu(count, data, top[0]->gpu_diff(), diff, op_);
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(HardSigmoidLayer);

}  // namespace caffe
