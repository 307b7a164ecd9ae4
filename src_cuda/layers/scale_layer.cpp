#include "caffe/layers/scale_layer.hpp"

#include <algorithm>
#include <vector>

#include "caffe/filler.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/util/channel_shares.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/parallel.hpp"
#include "caffe/util/simd.hpp"

// Scale on the CPU: the class and its blobs are the fork's. With bottom divided into outer x scale x
// inner,
//
//     top(o, s, i) = scale(s) bottom(o, s, i) [+ bias(s)]
//
// in one pass, in place or not. The blob of the bias belongs to a Bias layer inside, as in the fork (whose gradient is
// switched by the last flag of param_propagate_down_), but the computation is done here.
namespace caffe {

namespace {

template <typename T>
T Dot(const T* a, const T* b, const int count) {
  constexpr int lanes = SimdLanes<T>();
  SimdT<T, lanes> sum[2] = {};
  int i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    sum[0] += SimdLoad<T, lanes>(a + i) * SimdLoad<T, lanes>(b + i);
    sum[1] += SimdLoad<T, lanes>(a + i + lanes) * SimdLoad<T, lanes>(b + i + lanes);
  }
  T total = SimdSum<T, lanes>(sum[0] + sum[1]);
  for (; i < count; ++i) { total += a[i] * b[i]; }
  return total;
}

}  // namespace

template <typename Dtype>
void ScaleLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const ScaleParameter& param = this->layer_param_.scale_param();
  if (bottom.size() == 1 && this->blobs_.empty()) {
    axis_ = bottom[0]->CanonicalAxisIndex(param.axis());
    CHECK_GE(param.num_axes(), -1) << "Scale layer " << this->layer_param_.name() << ": num_axes is "
                                   << param.num_axes() << ", must be -1 or more.";
    const int end = param.num_axes() == -1 ? bottom[0]->num_axes() : axis_ + param.num_axes();
    CHECK_LE(end, bottom[0]->num_axes()) << "Scale layer " << this->layer_param_.name()
                                         << ": axis and num_axes go up to axis " << end - 1 << ", its bottom has "
                                         << bottom[0]->num_axes() << " axes.";
    const vector<int>& shape = bottom[0]->shape();
    this->blobs_.emplace_back(new Blob<Dtype>(vector<int>(shape.begin() + axis_, shape.begin() + end)));
    FillerParameter ones;
    ones.set_type("constant");
    ones.set_value(1);
    shared_ptr<Filler<Dtype>> filler(GetFiller<Dtype>(param.has_filler() ? param.filler() : ones));
    filler->Fill(this->blobs_[0].get());
  }
  if (param.bias_term()) {
    LayerParameter bias(this->layer_param_);
    bias.set_type("Bias");
    bias.clear_blobs();
    bias.mutable_bias_param()->set_axis(param.axis());
    bias.mutable_bias_param()->set_num_axes(bottom.size() > 1 ? bottom[1]->num_axes() : param.num_axes());
    bias.mutable_bias_param()->mutable_filler()->CopyFrom(param.bias_filler());
    bias_layer_ = LayerRegistry<Dtype>::CreateLayer(bias);
    bias_bottom_vec_.assign(1, bottom[0]);
    bias_layer_->SetUp(bias_bottom_vec_, top);
    if (this->blobs_.size() + bottom.size() < 3) {
      this->blobs_.push_back(bias_layer_->blobs()[0]);
    } else {  // the layer was made with blobs
      bias_layer_->blobs()[0] = this->blobs_.back();
    }
    bias_param_id_ = this->blobs_.size() - 1;
    bias_propagate_down_.assign(1, false);
  }
  this->param_propagate_down_.resize(this->blobs_.size(), true);
}

template <typename Dtype>
void ScaleLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Blob<Dtype>& scale = bottom.size() > 1 ? *bottom[1] : *this->blobs_[0];
  axis_ = scale.num_axes() == 0 ? 0 : bottom[0]->CanonicalAxisIndex(this->layer_param_.scale_param().axis());
  CHECK_LE(axis_ + scale.num_axes(), bottom[0]->num_axes())
      << "Scale layer " << this->layer_param_.name() << ": the axes of the scale go up to axis "
      << axis_ + scale.num_axes() - 1 << ", its bottom has " << bottom[0]->num_axes() << " axes.";
  outer_dim_ = bottom[0]->count(0, axis_);
  scale_dim_ = scale.count();
  inner_dim_ = bottom[0]->count(axis_ + scale.num_axes());
  for (int i = 0; i < scale.num_axes(); ++i) {
    CHECK_EQ(scale.shape(i), bottom[0]->shape(axis_ + i))
        << "Scale layer " << this->layer_param_.name() << ": the scale's shape " << scale.shape_string()
        << " must be that of its bottom, " << bottom[0]->shape_string() << ", from axis " << axis_ << " on.";
  }
  if (bottom[0] == top[0]) {
    temp_.ReshapeLike(*bottom[0]);
  } else {
    top[0]->ReshapeLike(*bottom[0]);
  }
  // The GPU code's room for two sums of each channel and share. It takes memory when it is written.
  sum_result_.Reshape(vector<int>(1, 2 * scale_dim_ * ChannelShares(outer_dim_, scale_dim_, inner_dim_)));
  if (bias_layer_) {
    bias_bottom_vec_[0] = top[0];
    bias_layer_->Reshape(bias_bottom_vec_, top);
  }
}

template <typename Dtype>
void ScaleLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Dtype* x = bottom[0]->cpu_data();
  const Dtype* scale = (bottom.size() > 1 ? bottom[1] : this->blobs_[0].get())->cpu_data();
  const Dtype* bias = bias_layer_ ? this->blobs_[bias_param_id_]->cpu_data() : nullptr;
  // In place the input is kept for Backward; a layer is not told whether Backward will be called.
  Dtype* kept = bottom[0] == top[0] ? temp_.mutable_cpu_data() : nullptr;
  Dtype* y = top[0]->mutable_cpu_data();
  const int rows = outer_dim_ * scale_dim_, inner = inner_dim_, scales = scale_dim_;
  ParallelFor(rows, ParallelGrain(rows, 1 + 30000 / std::max(1, inner)), [=](const int begin, const int end) {
    for (int row = begin; row < end; ++row) {
      const size_t first = static_cast<size_t>(row) * inner;
      const Dtype factor = scale[row % scales], shift = bias == nullptr ? Dtype(0) : bias[row % scales];
      const Dtype* from = x + first;
      Dtype* to = y + first;
      if (kept == nullptr) {
#pragma GCC ivdep
        for (int i = 0; i < inner; ++i) { to[i] = from[i] * factor + shift; }
      } else {
        Dtype* keep = kept + first;
#pragma GCC ivdep
        for (int i = 0; i < inner; ++i) {
          const Dtype value = from[i];
          keep[i] = value;
          to[i] = value * factor + shift;
        }
      }
    }
  });
}

template <typename Dtype>
void ScaleLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                     const vector<Blob<Dtype>*>& bottom) {
  const bool learned = bottom.size() == 1;
  Blob<Dtype>* scale = learned ? this->blobs_[0].get() : bottom[1];
  const bool for_scale = learned ? this->param_propagate_down_[0] : propagate_down[1];
  const bool for_bias = bias_layer_ && this->param_propagate_down_.back();
  const Dtype* dy = top[0]->cpu_diff();
  const Dtype* x = (bottom[0] == top[0] ? temp_ : *bottom[0]).cpu_data();
  const Dtype* factors = scale->cpu_data();
  Dtype* dx = propagate_down[0] ? bottom[0]->mutable_cpu_diff() : nullptr;
  Dtype* scale_diff = for_scale ? scale->mutable_cpu_diff() : nullptr;
  Dtype* bias_diff = for_bias ? this->blobs_[bias_param_id_]->mutable_cpu_diff() : nullptr;
  const int outer = outer_dim_, scales = scale_dim_, inner = inner_dim_;
  const int least = static_cast<int>(1 + 30000 / std::max<int64_t>(1, static_cast<int64_t>(outer) * inner));
  // A thread does one scale in all images: dy is in the cache when it is read again, and no partial sums are needed.
  ParallelFor(scales, ParallelGrain(scales, least), [=](const int begin, const int end) {
    if (inner == 1) {  // a row has one value of each scale: go along the rows
      for (int o = 0; o < outer; ++o) {
        const Dtype* from = dy + static_cast<size_t>(o) * scales;
        const Dtype* value = x + static_cast<size_t>(o) * scales;
        for (int s = begin; s < end; ++s) {
          if (scale_diff != nullptr) {
            scale_diff[s] = (o > 0 || learned ? scale_diff[s] : Dtype(0)) + from[s] * value[s];
          }
          if (bias_diff != nullptr) { bias_diff[s] += from[s]; }
          if (dx != nullptr) { dx[static_cast<size_t>(o) * scales + s] = from[s] * factors[s]; }
        }
      }
      return;
    }
    for (int s = begin; s < end; ++s) {
      double scale_sum = 0, bias_sum = 0;
      for (int o = 0; o < outer; ++o) {
        const size_t first = (static_cast<size_t>(o) * scales + s) * inner;
        const Dtype* from = dy + first;
        if (scale_diff != nullptr) { scale_sum += Dot(from, x + first, inner); }
        if (bias_diff != nullptr) { bias_sum += SimdTotal(from, inner); }
        if (dx == nullptr) { continue; }
        Dtype* to = dx + first;
        const Dtype factor = factors[s];
#pragma GCC ivdep
        for (int i = 0; i < inner; ++i) { to[i] = from[i] * factor; }
      }
      if (scale_diff != nullptr) {
        scale_diff[s] = (learned ? scale_diff[s] : Dtype(0)) + static_cast<Dtype>(scale_sum);
      }
      if (bias_diff != nullptr) { bias_diff[s] += static_cast<Dtype>(bias_sum); }
    }
  });
}

#ifdef CPU_ONLY
STUB_GPU(ScaleLayer);
#endif

INSTANTIATE_CLASS(ScaleLayer);
REGISTER_LAYER_CLASS(Scale);

}  // namespace caffe
