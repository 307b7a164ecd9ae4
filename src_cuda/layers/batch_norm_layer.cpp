#include "caffe/layers/batch_norm_layer.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "caffe/util/channel_shares.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/parallel.hpp"
#include "caffe/util/simd.hpp"

// BatchNorm on the CPU: the class and its blobs are the fork's. A thread does all passes over a channel
// while its values are in the cache; the only copy is x_norm_, which Backward needs:
//
//     forward   mean, then variance = mean((x - mean)^2), then y = (x - mean) / sqrt(variance + eps)
//     backward  dx = (dy - mean(dy) - mean(dy y) y) / sqrt(variance + eps)
//
// The means are over images and positions. Source: Ioffe and Szegedy, Batch Normalization (2015), algorithm 1.
namespace caffe {

namespace {

/// A channel's planes, one in each image.
struct Planes {
  int num, size;
  size_t step;

  double count() const { return static_cast<double>(num) * size; }
};

/// A sum over a channel: op.Many gives what a vector of values adds, op.One what a single value at the end of a plane
/// adds.
template <typename T, typename Op>
double ChannelSum(const Planes& planes, const Op& op) {
  constexpr int lanes = SimdLanes<T>();
  double total = 0;
  for (int n = 0; n < planes.num; ++n) {
    const size_t first = n * planes.step;
    SimdT<T, lanes> sum[4] = {};
    int i = 0;
    for (; i + 4 * lanes <= planes.size; i += 4 * lanes) {
      for (int v = 0; v < 4; ++v) { sum[v] += op.Many(first + i + v * lanes); }
    }
    for (; i + lanes <= planes.size; i += lanes) { sum[0] += op.Many(first + i); }
    total += SimdSum<T, lanes>((sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (; i < planes.size; ++i) { total += op.One(first + i); }
  }
  return total;
}

template <typename T>
struct Value {
  const T* x;
  SimdT<T, SimdLanes<T>()> Many(size_t i) const { return SimdLoad<T, SimdLanes<T>()>(x + i); }
  T One(size_t i) const { return x[i]; }
};

template <typename T>
struct SquaredDistance {
  const T* x;
  T from;
  SimdT<T, SimdLanes<T>()> Many(size_t i) const {
    const auto d = SimdLoad<T, SimdLanes<T>()>(x + i) - from;
    return d * d;
  }
  T One(size_t i) const { return (x[i] - from) * (x[i] - from); }
};

template <typename T>
struct ProductOf {
  const T* x;
  const T* y;
  SimdT<T, SimdLanes<T>()> Many(size_t i) const {
    return SimdLoad<T, SimdLanes<T>()>(x + i) * SimdLoad<T, SimdLanes<T>()>(y + i);
  }
  T One(size_t i) const { return x[i] * y[i]; }
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
  const Dtype* x = bottom[0]->cpu_data();
  Dtype* y = top[0]->mutable_cpu_data();
  // With stored statistics Backward does not need x_norm_.
  Dtype* kept = use_global_stats_ ? nullptr : x_norm_.mutable_cpu_data();
  Dtype* means = mean_.mutable_cpu_data();
  Dtype* deviations = variance_.mutable_cpu_data();
  const int num = bottom[0]->shape(0);
  const int size = bottom[0]->count(1) / channels_;
  const Planes planes = {num, size, static_cast<size_t>(channels_) * size};
  if (use_global_stats_) {
    const Dtype weight = this->blobs_[2]->cpu_data()[0];
    const Dtype factor = weight == 0 ? 0 : 1 / weight;
    for (int c = 0; c < channels_; ++c) {
      means[c] = factor * this->blobs_[0]->cpu_data()[c];
      deviations[c] = std::sqrt(factor * this->blobs_[1]->cpu_data()[c] + eps_);
    }
  }
  Dtype* mean_sum = use_global_stats_ ? nullptr : this->blobs_[0]->mutable_cpu_data();
  Dtype* variance_sum = use_global_stats_ ? nullptr : this->blobs_[1]->mutable_cpu_data();
  const double count = planes.count();
  // The running average is over the unbiased estimates.
  const Dtype unbiased = count > 1 ? count / (count - 1) : 1;
  const auto channels = [&](const int begin, const int end) {
    for (int c = begin; c < end; ++c) {
      const size_t first = static_cast<size_t>(c) * size;
      if (!use_global_stats_) {
        const Dtype mean = ChannelSum<Dtype>(planes, Value<Dtype>{x + first}) / count;
        const Dtype variance = ChannelSum<Dtype>(planes, SquaredDistance<Dtype>{x + first, mean}) / count;
        mean_sum[c] = mean + moving_average_fraction_ * mean_sum[c];
        variance_sum[c] = unbiased * variance + moving_average_fraction_ * variance_sum[c];
        means[c] = mean;
        deviations[c] = std::sqrt(variance + eps_);
      }
      const Dtype mean = means[c];
      const Dtype factor = 1 / deviations[c];
      for (int n = 0; n < num; ++n) {
        const Dtype* from = x + first + n * planes.step;
        Dtype* to = y + first + n * planes.step;
        if (kept == nullptr) {
#pragma GCC ivdep
          for (int i = 0; i < size; ++i) { to[i] = (from[i] - mean) * factor; }
        } else {
          Dtype* keep = kept + first + n * planes.step;
#pragma GCC ivdep
          for (int i = 0; i < size; ++i) { to[i] = keep[i] = (from[i] - mean) * factor; }
        }
      }
    }
  };
  if (!use_global_stats_) {
    Dtype* weight = this->blobs_[2]->mutable_cpu_data();
    weight[0] = weight[0] * moving_average_fraction_ + 1;
  }
  ParallelFor(channels_, ParallelGrain(channels_, static_cast<int>(1 + 30000 / count)), channels);
}

template <typename Dtype>
void BatchNormLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                         const vector<Blob<Dtype>*>& bottom) {
  if (bottom[0]->count() == 0) { return; }
  const Dtype* dy = top[0]->cpu_diff();
  Dtype* dx = bottom[0]->mutable_cpu_diff();
  const Dtype* y = use_global_stats_ ? nullptr : x_norm_.cpu_data();
  const Dtype* deviations = variance_.cpu_data();
  const int num = bottom[0]->shape(0);
  const int size = bottom[0]->count(1) / channels_;
  const Planes planes = {num, size, static_cast<size_t>(channels_) * size};
  const double count = planes.count();
  const auto channels = [&](const int begin, const int end) {
    for (int c = begin; c < end; ++c) {
      const size_t first = static_cast<size_t>(c) * size;
      const Dtype factor = 1 / deviations[c];
      Dtype mean = 0, slope = 0;
      if (!use_global_stats_) {
        mean = ChannelSum<Dtype>(planes, Value<Dtype>{dy + first}) / count;
        slope = ChannelSum<Dtype>(planes, ProductOf<Dtype>{dy + first, y + first}) / count;
      }
      for (int n = 0; n < num; ++n) {
        const Dtype* from = dy + first + n * planes.step;
        Dtype* to = dx + first + n * planes.step;
        if (use_global_stats_) {
#pragma GCC ivdep
          for (int i = 0; i < size; ++i) { to[i] = from[i] * factor; }
        } else {
          const Dtype* out = y + first + n * planes.step;
#pragma GCC ivdep
          for (int i = 0; i < size; ++i) { to[i] = (from[i] - mean - slope * out[i]) * factor; }
        }
      }
    }
  };
  ParallelFor(channels_, ParallelGrain(channels_, static_cast<int>(1 + 30000 / count)), channels);
}

#ifdef CPU_ONLY
STUB_GPU(BatchNormLayer);
#endif

INSTANTIATE_CLASS(BatchNormLayer);
REGISTER_LAYER_CLASS(BatchNorm);

}  // namespace caffe
