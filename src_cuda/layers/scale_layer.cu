#include <vector>

#include "caffe/layers/scale_layer.hpp"
#include "caffe/util/channel_sums.cuh"

// Scale on the GPU, with the formulas of scale_layer.cpp: the gradients of scale and bias in one pass. `sum_result_` is
// the room for their sums.
namespace caffe {

namespace {

template <typename Dtype>
struct Scaled {
  const Dtype* scale;
  const Dtype* bias;  // may be null
  const Dtype* x;
  Dtype* y;
  Dtype* kept;  // a copy of x, which y may overwrite; may be null
  __device__ void operator()(const unsigned c, const unsigned i) const {
    const Dtype value = x[i];
    if (kept != nullptr) { kept[i] = value; }
    y[i] = value * __ldg(scale + c) + (bias == nullptr ? Dtype(0) : __ldg(bias + c));
  }
};

/// The gradients of scale and bias, where they are wanted; added to what is there, or in its place.
template <typename Dtype>
struct KeepGradients {
  bool adds;
  Dtype* scale_diff;
  Dtype* bias_diff;
  __device__ void operator()(const int c, const double* totals) const {
    if (scale_diff != nullptr) { scale_diff[c] = static_cast<Dtype>(totals[1] + (adds ? scale_diff[c] : Dtype(0))); }
    if (bias_diff != nullptr) { bias_diff[c] = static_cast<Dtype>(totals[0] + bias_diff[c]); }
  }
};

/// The same where each value has a scale of its own.
template <typename Dtype>
struct GradientsOfEach {
  const Dtype* dy;
  const Dtype* x;
  KeepGradients<Dtype> keep;
  __device__ void operator()(const unsigned c, const unsigned i) const {
    const double totals[2] = {dy[i], static_cast<double>(dy[i]) * x[i]};
    keep(c, totals);
  }
};

}  // namespace

template <typename Dtype>
void ScaleLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Blob<Dtype>& scale = bottom.size() > 1 ? *bottom[1] : *this->blobs_[0];
  const Dtype* bias = bias_layer_ ? this->blobs_[bias_param_id_]->gpu_data() : nullptr;
  const Dtype* x = bottom[0]->gpu_data();
  Dtype* kept = bottom[0] == top[0] ? temp_.mutable_gpu_data() : nullptr;
  EachOfChannel(top[0]->count(), scale_dim_, inner_dim_,
                Scaled<Dtype>{scale.gpu_data(), bias, x, top[0]->mutable_gpu_data(), kept});
}

template <typename Dtype>
void ScaleLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                     const vector<Blob<Dtype>*>& bottom) {
  const int count = top[0]->count();
  if (count == 0) { return; }
  const bool own = bottom.size() == 1;
  Blob<Dtype>* const scale = own ? this->blobs_[0].get() : bottom[1];
  const bool for_scale = own ? this->param_propagate_down_[0] : propagate_down[1];
  const bool for_bias = bias_layer_ && this->param_propagate_down_.back();
  const Dtype* dy = top[0]->gpu_diff();
  if (for_scale || for_bias) {
    const Dtype* x = (bottom[0] == top[0] ? &temp_ : bottom[0])->gpu_data();
    const KeepGradients<Dtype> keep = {own, for_scale ? scale->mutable_gpu_diff() : nullptr,
                                       for_bias ? this->blobs_[bias_param_id_]->mutable_gpu_diff() : nullptr};
    if (outer_dim_ * inner_dim_ == 1) {
      EachOfChannel(count, scale_dim_, inner_dim_, GradientsOfEach<Dtype>{dy, x, keep});
    } else {
      SumChannels<Dtype, 2>(outer_dim_, scale_dim_, inner_dim_, SumAndProduct<Dtype>{dy, x}, keep,
                            sum_result_.mutable_gpu_data());
    }
  }
  if (propagate_down[0]) {
    const Dtype* none = nullptr;
    Dtype* dx = bottom[0]->mutable_gpu_diff();
    EachOfChannel(count, scale_dim_, inner_dim_, Scaled<Dtype>{scale->gpu_data(), none, dy, dx, nullptr});
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(ScaleLayer);

}  // namespace caffe
