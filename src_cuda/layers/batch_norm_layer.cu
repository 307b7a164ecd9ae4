#include <vector>

#include "caffe/layers/batch_norm_layer.hpp"
#include "caffe/util/channel_sums.cuh"

// BatchNorm on the GPU, with the formulas of batch_norm_layer.cpp: a pass for the mean, one for the variance, one that
// writes the result and the copy that Backward needs. `num_by_chans_` is the room for sums: the shares' parts, then two
// values for each channel.
namespace caffe {

namespace {

template <typename Dtype>
struct SumOf {
  const Dtype* x;
  __device__ void operator()(int, const int i, Dtype* sums) const { sums[0] += __ldg(x + i); }
};

template <typename Dtype>
struct SquaredDistanceOf {
  const Dtype* x;
  const Dtype* mean;
  __device__ void operator()(const int c, const int i, Dtype* sums) const {
    const Dtype d = __ldg(x + i) - __ldg(mean + c);
    sums[0] += d * d;
  }
};

template <typename Dtype>
struct KeepMean {
  double count;
  Dtype fraction;
  Dtype* mean;
  Dtype* average;
  __device__ void operator()(const int c, const double* totals) const {
    mean[c] = static_cast<Dtype>(totals[0] / count);
    average[c] = mean[c] + fraction * average[c];
  }
};

template <typename Dtype>
struct KeepDeviation {
  double count;
  Dtype fraction, unbiased, eps;
  Dtype* deviation;
  Dtype* average;
  __device__ void operator()(const int c, const double* totals) const {
    const Dtype variance = static_cast<Dtype>(totals[0] / count);
    average[c] = unbiased * variance + fraction * average[c];
    deviation[c] = sqrt(variance + eps);
  }
};

/// The stored statistics, divided by their weight.
template <typename Dtype>
struct Stored {
  Dtype factor, eps;
  const Dtype* mean_sum;
  const Dtype* variance_sum;
  Dtype* mean;
  Dtype* deviation;
  __device__ void operator()(const unsigned c, unsigned) const {
    mean[c] = factor * mean_sum[c];
    deviation[c] = sqrt(factor * variance_sum[c] + eps);
  }
};

template <typename Dtype>
struct Normalise {
  const Dtype* mean;
  const Dtype* deviation;
  const Dtype* x;
  Dtype* y;
  Dtype* kept;  // null where Backward does not need it
  __device__ void operator()(const unsigned c, const unsigned i) const {
    const Dtype value = (x[i] - __ldg(mean + c)) * (1 / __ldg(deviation + c));
    y[i] = value;
    if (kept != nullptr) { kept[i] = value; }
  }
};

template <typename Dtype>
struct KeepMeans {
  double count;
  Dtype* mean;
  Dtype* slope;
  __device__ void operator()(const int c, const double* totals) const {
    mean[c] = static_cast<Dtype>(totals[0] / count);
    slope[c] = static_cast<Dtype>(totals[1] / count);
  }
};

template <typename Dtype>
struct Gradient {
  const Dtype* mean;
  const Dtype* slope;
  const Dtype* deviation;
  const Dtype* dy;
  const Dtype* y;
  Dtype* dx;
  __device__ void operator()(const unsigned c, const unsigned i) const {
    dx[i] = (dy[i] - __ldg(mean + c) - __ldg(slope + c) * y[i]) * (1 / __ldg(deviation + c));
  }
};

template <typename Dtype>
struct ScaledGradient {
  const Dtype* deviation;
  const Dtype* dy;
  Dtype* dx;
  __device__ void operator()(const unsigned c, const unsigned i) const { dx[i] = dy[i] * (1 / __ldg(deviation + c)); }
};

}  // namespace

template <typename Dtype>
void BatchNormLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const int count = bottom[0]->count();
  if (count == 0) { return; }
  const int num = bottom[0]->shape(0), size = bottom[0]->count(1) / channels_;
  const Dtype* x = bottom[0]->gpu_data();
  Dtype* mean = mean_.mutable_gpu_data();
  Dtype* deviation = variance_.mutable_gpu_data();
  if (use_global_stats_) {
    const Dtype weight = this->blobs_[2]->cpu_data()[0];
    const Stored<Dtype> stored = {weight == 0 ? 0 : 1 / weight, eps_, this->blobs_[0]->gpu_data(),
                                  this->blobs_[1]->gpu_data(),  mean, deviation};
    EachOfChannel(channels_, channels_, 1, stored);
  } else {
    const double values = static_cast<double>(num) * size;
    // The running average is over the unbiased estimates.
    const Dtype unbiased = values > 1 ? values / (values - 1) : 1;
    Dtype* room = num_by_chans_.mutable_gpu_data();
    const KeepMean<Dtype> keep_mean = {values, moving_average_fraction_, mean, this->blobs_[0]->mutable_gpu_data()};
    SumChannels<Dtype, 1>(num, channels_, size, SumOf<Dtype>{x}, keep_mean, room);
    const KeepDeviation<Dtype> keep = {values,    moving_average_fraction_,           unbiased, eps_,
                                       deviation, this->blobs_[1]->mutable_gpu_data()};
    SumChannels<Dtype, 1>(num, channels_, size, SquaredDistanceOf<Dtype>{x, mean}, keep, room);
    Dtype* weight = this->blobs_[2]->mutable_cpu_data();
    weight[0] = weight[0] * moving_average_fraction_ + 1;
  }
  Dtype* kept = use_global_stats_ ? nullptr : x_norm_.mutable_gpu_data();
  EachOfChannel(count, channels_, size, Normalise<Dtype>{mean, deviation, x, top[0]->mutable_gpu_data(), kept});
}

template <typename Dtype>
void BatchNormLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                         const vector<Blob<Dtype>*>& bottom) {
  const int count = bottom[0]->count();
  if (count == 0) { return; }
  const int num = bottom[0]->shape(0), size = bottom[0]->count(1) / channels_;
  const Dtype* dy = top[0]->gpu_diff();
  Dtype* dx = bottom[0]->mutable_gpu_diff();
  const Dtype* deviation = variance_.gpu_data();
  if (use_global_stats_) {
    EachOfChannel(count, channels_, size, ScaledGradient<Dtype>{deviation, dy, dx});
    return;
  }
  const Dtype* y = x_norm_.gpu_data();
  Dtype* room = num_by_chans_.mutable_gpu_data();
  Dtype* mean = room + num_by_chans_.count() - 2 * channels_;
  Dtype* slope = mean + channels_;
  const KeepMeans<Dtype> keep = {static_cast<double>(num) * size, mean, slope};
  SumChannels<Dtype, 2>(num, channels_, size, SumAndProduct<Dtype>{dy, y}, keep, room);
  EachOfChannel(count, channels_, size, Gradient<Dtype>{mean, slope, deviation, dy, y, dx});
}

INSTANTIATE_LAYER_GPU_FUNCS(BatchNormLayer);

}  // namespace caffe
