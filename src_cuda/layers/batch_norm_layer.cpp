#include "caffe/layers/batch_norm_layer.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "caffe/util/batch_norm.hpp"
#include "caffe/util/channel_shares.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/parallel.hpp"

// BatchNorm on the CPU (util/batch_norm.hpp): the class and its blobs are the fork's. In training a net computes it
// together with the Scale after it (util/norm_unit.cpp).
namespace caffe {

namespace {

/// Nothing follows in the same pass.
template <typename Dtype>
struct Nothing {
  static constexpr bool kSloped = false;
  Nothing Of(int) const { return *this; }
  Dtype Value(const Dtype x) const { return x; }
  Dtype Slope(Dtype) const { return 1; }
  Dtype ScaleOf(int) const { return 1; }
  void AddGradients(int, double, double) const {}
};

}  // namespace

template <typename Dtype>
void BatchNormLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const BatchNormParameter& param = this->layer_param_.batch_norm_param();
  moving_average_fraction_ = param.moving_average_fraction();
  eps_ = param.eps();
  use_global_stats_ = param.has_use_global_stats() ? param.use_global_stats() : this->phase_ == TEST;
  channels_ = bottom[0]->num_axes() == 1 ? 1 : bottom[0]->shape(1);
  // No solver may learn statistics, or let them decay. Caffe drops a BatchNorm's three `param` blocks as it reads a net
  // (UpgradeNetBatchNorm in upgrade_proto.cpp) and leaves this to the layer.
  for (int i = 0; i < 3; ++i) {
    LayerParameter& layer = this->layer_param_;
    ParamSpec* const fixed = i < layer.param_size() ? layer.mutable_param(i) : layer.add_param();
    fixed->set_lr_mult(0);
    fixed->set_decay_mult(0);
  }
  if (!this->blobs_.empty()) { return; }
  // Mean and variance, both multiplied by the third blob, which is the weight of the averages.
  for (const int count : {channels_, channels_, 1}) {
    this->blobs_.emplace_back(new Blob<Dtype>(vector<int>(1, count)));
    caffe_set(count, Dtype(0), this->blobs_.back()->mutable_cpu_data());
  }
}

template <typename Dtype>
void BatchNormLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (bottom[0]->num_axes() > 1) {
    CHECK_EQ(bottom[0]->shape(1), channels_)
        << "BatchNorm layer " << this->layer_param_.name() << ": its bottom has " << bottom[0]->shape(1)
        << " channels, must have " << channels_ << " as at set-up.";
  }
  top[0]->ReshapeLike(*bottom[0]);
  mean_.Reshape(vector<int>(1, channels_));
  variance_.Reshape(vector<int>(1, channels_));
  x_norm_.ReshapeLike(*bottom[0]);
  // The GPU code's room for two sums of each channel and share, and for two results. It takes memory when it is
  // written.
  const int shares = ChannelShares(bottom[0]->shape(0), channels_, bottom[0]->count(1) / std::max(1, channels_));
  num_by_chans_.Reshape(vector<int>(1, 2 * channels_ * (shares + 1)));
}

template <typename Dtype>
void BatchNormLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (bottom[0]->count() == 0) { return; }  // there is no mean of an empty batch
  if (!use_global_stats_) {
    BatchNormForward(OpenBatchNorm<Dtype>::Parts(this), *bottom[0], top[0], Nothing<Dtype>());
    return;
  }
  const Dtype* x = bottom[0]->cpu_data();
  Dtype* y = top[0]->mutable_cpu_data();
  Dtype* means = mean_.mutable_cpu_data();
  Dtype* deviations = variance_.mutable_cpu_data();
  const Dtype weight = this->blobs_[2]->cpu_data()[0];
  const Dtype factor = weight == 0 ? 0 : 1 / weight;
  for (int c = 0; c < channels_; ++c) {
    means[c] = factor * this->blobs_[0]->cpu_data()[c];
    deviations[c] = std::sqrt(factor * this->blobs_[1]->cpu_data()[c] + eps_);
  }
  const Planes planes = Planes::Of(*bottom[0], channels_);
  ParallelFor(channels_, planes.grain(channels_), [&](const int begin, const int end) {
    for (int c = begin; c < end; ++c) {
      const Dtype mean = means[c], factor = 1 / deviations[c];
      for (int n = 0; n < planes.num; ++n) {
        const Dtype* from = x + planes.At(c, n);
        Dtype* to = y + planes.At(c, n);
#pragma GCC ivdep
        for (int i = 0; i < planes.size; ++i) { to[i] = (from[i] - mean) * factor; }
      }
    }
  });
}

template <typename Dtype>
void BatchNormLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                         const vector<Blob<Dtype>*>& bottom) {
  if (bottom[0]->count() == 0) { return; }
  const Dtype* dy = top[0]->cpu_diff();
  if (!use_global_stats_) {
    BatchNormBackward<Dtype>(OpenBatchNorm<Dtype>::Parts(this), nullptr, dy, bottom[0], Nothing<Dtype>());
    return;
  }
  Dtype* dx = bottom[0]->mutable_cpu_diff();
  const Dtype* deviations = variance_.cpu_data();
  const Planes planes = Planes::Of(*bottom[0], channels_);
  ParallelFor(channels_, planes.grain(channels_), [&](const int begin, const int end) {
    for (int c = begin; c < end; ++c) {
      const Dtype factor = 1 / deviations[c];
      for (int n = 0; n < planes.num; ++n) {
        const Dtype* from = dy + planes.At(c, n);
        Dtype* to = dx + planes.At(c, n);
#pragma GCC ivdep
        for (int i = 0; i < planes.size; ++i) { to[i] = from[i] * factor; }
      }
    }
  });
}

#ifdef CPU_ONLY
STUB_GPU(BatchNormLayer);
#endif

INSTANTIATE_CLASS(BatchNormLayer);
REGISTER_LAYER_CLASS(BatchNorm);

}  // namespace caffe
