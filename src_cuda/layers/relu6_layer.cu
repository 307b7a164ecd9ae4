#include <vector>

#include "caffe/layers/relu6_layer.hpp"
#include "caffe/util/pointwise.cuh"

namespace caffe {

template <typename Dtype>
void ReLU6Layer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  PointwiseForwardGpu(bottom[0]->count(), bottom[0]->gpu_data(), top[0]->mutable_gpu_data(), op_);
}

template <typename Dtype>
void ReLU6Layer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                     const vector<Blob<Dtype>*>& bottom) {
  if (propagate_down[0]) {
    PointwiseBackwardGpu(bottom[0]->count(), bottom[0]->gpu_data(), top[0]->gpu_diff(), bottom[0]->mutable_gpu_diff(),
                         op_);
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(ReLU6Layer);

}  // namespace caffe
