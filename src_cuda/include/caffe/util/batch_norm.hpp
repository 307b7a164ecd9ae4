#ifndef CAFFE_UTIL_BATCH_NORM_HPP_
#define CAFFE_UTIL_BATCH_NORM_HPP_

#include <algorithm>
#include <cmath>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layers/batch_norm_layer.hpp"
#include "caffe/util/parallel.hpp"
#include "caffe/util/simd.hpp"

/**
 * Batch normalisation on the CPU with the statistics of the batch, and what follows it in the same pass over memory.
 *
 *     forward   mean, then variance = mean((x - mean)^2), then n = (x - mean) / sqrt(variance + eps), y = after(n)
 *     backward  g = dy dy/dn, then dx = (g - mean(g) - mean(g n) n) / sqrt(variance + eps)
 *
 * The means are over images and positions. A thread does all passes over a channel while its values are in the cache;
 * the only copy is n, which the backward pass needs. Source: Ioffe and Szegedy, Batch Normalization (2015),
 * algorithm 1.
 */
namespace caffe {

/// A channel's planes, one in each image.
struct Planes {
  int num, size;
  size_t step;

  template <typename Dtype>
  static Planes Of(const Blob<Dtype>& blob, const int channels) {
    const int size = blob.count(1) / channels;
    return {blob.shape(0), size, static_cast<size_t>(channels) * size};
  }
  double count() const { return static_cast<double>(num) * size; }
  size_t At(const int channel, const int n) const { return static_cast<size_t>(channel) * size + n * step; }
  int grain(const int channels) const { return ParallelGrain(channels, static_cast<int>(1 + 30000 / count())); }
};

/// A sum over a plane: op.Many gives what a vector of values adds, op.One what a single value at its end adds.
template <typename T, typename Op>
void AddPlane(const int size, const Op& op, double* total) {
  constexpr int lanes = SimdLanes<T>();
  SimdT<T, lanes> sum[4] = {};
  int i = 0;
  for (; i + 4 * lanes <= size; i += 4 * lanes) {
    for (int v = 0; v < 4; ++v) { sum[v] += op.Many(i + v * lanes); }
  }
  for (; i + lanes <= size; i += lanes) { sum[0] += op.Many(i); }
  *total += SimdSum<T, lanes>((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; i < size; ++i) { *total += op.One(i); }
}

template <typename T>
struct ValueOf {
  const T* x;
  SimdT<T, SimdLanes<T>()> Many(int i) const { return SimdLoad<T, SimdLanes<T>()>(x + i); }
  T One(int i) const { return x[i]; }
};

template <typename T>
struct SquaredDistance {
  const T* x;
  T from;
  SimdT<T, SimdLanes<T>()> Many(int i) const {
    const auto d = SimdLoad<T, SimdLanes<T>()>(x + i) - from;
    return d * d;
  }
  T One(int i) const { return (x[i] - from) * (x[i] - from); }
};

template <typename T>
struct ProductOf {
  const T* x;
  const T* y;
  SimdT<T, SimdLanes<T>()> Many(int i) const {
    return SimdLoad<T, SimdLanes<T>()>(x + i) * SimdLoad<T, SimdLanes<T>()>(y + i);
  }
  T One(int i) const { return x[i] * y[i]; }
};

/// What a BatchNorm layer has: of each channel its mean and sqrt(variance + eps), the normalised values, its blobs.
template <typename Dtype>
struct BatchNormParts {
  int channels;
  Dtype moving_average_fraction, eps;
  Blob<Dtype>* means;
  Blob<Dtype>* deviations;
  Blob<Dtype>* normalised;
  const std::vector<shared_ptr<Blob<Dtype>>>* blobs;
};

/// The class is the fork's, and these are protected there.
template <typename Dtype>
class OpenBatchNorm : public BatchNormLayer<Dtype> {
 public:
  static bool uses_batch(const BatchNormLayer<Dtype>& layer) { return !(layer.*&OpenBatchNorm::use_global_stats_); }
  static BatchNormParts<Dtype> Parts(BatchNormLayer<Dtype>* layer) {
    return {layer->*&OpenBatchNorm::channels_,
            layer->*&OpenBatchNorm::moving_average_fraction_,
            layer->*&OpenBatchNorm::eps_,
            &(layer->*&OpenBatchNorm::mean_),
            &(layer->*&OpenBatchNorm::variance_),
            &(layer->*&OpenBatchNorm::x_norm_),
            &layer->blobs()};
  }
};

/// Values that somebody else refers to stay as they are: the blob gets memory of its own for the next ones.
template <typename Dtype>
void LeaveToOthers(Blob<Dtype>* blob) {
  if (blob->data().use_count() == 1) { return; }
  Blob<Dtype> fresh(std::vector<int>(1, static_cast<int>(blob->data()->size() / sizeof(Dtype))));
  fresh.ReshapeLike(*blob);  // its memory stays as large as the blob's
  blob->ShareData(fresh);
}

/*
 * An After is what follows a BatchNorm in the same pass:
 *
 *     Of(channel).Value(n)            y, for the normalised value n
 *     kSloped, Slope(y)               whether dy/dn has a factor that depends on y, and this factor
 *     ScaleOf(channel)                the other factor of dy/dn
 *     AddGradients(channel, a, b)     a: sum of the gradients dy Slope(y) of a channel; b: of these times n
 */

/// y may be x.
template <typename Dtype, typename After>
void BatchNormForward(const BatchNormParts<Dtype>& norm, const Blob<Dtype>& bottom, Blob<Dtype>* top,
                      const After& after) {
  const Dtype* x = bottom.cpu_data();
  Dtype* y = top->mutable_cpu_data();
  LeaveToOthers(norm.normalised);
  Dtype* normalised = norm.normalised->mutable_cpu_data();
  Dtype* means = norm.means->mutable_cpu_data();
  Dtype* deviations = norm.deviations->mutable_cpu_data();
  // Mean and variance, both multiplied by the third blob, which is the weight of the averages.
  Dtype* mean_sum = (*norm.blobs)[0]->mutable_cpu_data();
  Dtype* variance_sum = (*norm.blobs)[1]->mutable_cpu_data();
  Dtype* weight = (*norm.blobs)[2]->mutable_cpu_data();
  const Dtype fraction = norm.moving_average_fraction, eps = norm.eps;
  weight[0] = weight[0] * fraction + 1;
  const Planes planes = Planes::Of(bottom, norm.channels);
  const double count = planes.count();
  // The running average is over the unbiased estimates.
  const Dtype unbiased = count > 1 ? count / (count - 1) : 1;
  ParallelFor(norm.channels, planes.grain(norm.channels), [&](const int begin, const int end) {
    for (int c = begin; c < end; ++c) {
      double sum = 0, squares = 0;
      for (int n = 0; n < planes.num; ++n) { AddPlane<Dtype>(planes.size, ValueOf<Dtype>{x + planes.At(c, n)}, &sum); }
      const Dtype mean = sum / count;
      for (int n = 0; n < planes.num; ++n) {
        AddPlane<Dtype>(planes.size, SquaredDistance<Dtype>{x + planes.At(c, n), mean}, &squares);
      }
      const Dtype variance = squares / count;
      mean_sum[c] = mean + fraction * mean_sum[c];
      variance_sum[c] = unbiased * variance + fraction * variance_sum[c];
      means[c] = mean;
      deviations[c] = std::sqrt(variance + eps);
      const Dtype factor = 1 / deviations[c];
      const auto op = after.Of(c);
      for (int n = 0; n < planes.num; ++n) {
        const Dtype* from = x + planes.At(c, n);
        Dtype* keep = normalised + planes.At(c, n);
        Dtype* to = y + planes.At(c, n);
#pragma GCC ivdep
        for (int i = 0; i < planes.size; ++i) {
          const Dtype value = (from[i] - mean) * factor;
          keep[i] = value;
          to[i] = op.Value(value);
        }
      }
    }
  });
}

/// y may be null unless After::kSloped; dx may be dy.
template <typename Dtype, typename After>
void BatchNormBackward(const BatchNormParts<Dtype>& norm, const Dtype* y, const Dtype* dy, Blob<Dtype>* bottom,
                       const After& after) {
  Dtype* dx = bottom->mutable_cpu_diff();
  const Dtype* normalised = norm.normalised->cpu_data();
  const Dtype* deviations = norm.deviations->cpu_data();
  const Planes planes = Planes::Of(*bottom, norm.channels);
  const double count = planes.count();
  ParallelFor(norm.channels, planes.grain(norm.channels), [&](const int begin, const int end) {
    for (int c = begin; c < end; ++c) {
      double sum = 0, products = 0;
      for (int n = 0; n < planes.num; ++n) {
        const size_t at = planes.At(c, n);
        const Dtype* g = dy + at;
        if (After::kSloped) {
          Dtype* to = dx + at;
          const Dtype* out = y + at;
#pragma GCC ivdep
          for (int i = 0; i < planes.size; ++i) { to[i] = g[i] * after.Slope(out[i]); }
          g = to;
        }
        AddPlane<Dtype>(planes.size, ValueOf<Dtype>{g}, &sum);
        AddPlane<Dtype>(planes.size, ProductOf<Dtype>{g, normalised + at}, &products);
      }
      after.AddGradients(c, sum, products);
      // Not with the scale in each of the three terms, where its rounding would be left of terms that cancel.
      const Dtype mean = sum / count, slope = products / count, factor = after.ScaleOf(c) / deviations[c];
      for (int n = 0; n < planes.num; ++n) {
        const size_t at = planes.At(c, n);
        const Dtype* g = (After::kSloped ? dx : dy) + at;
        const Dtype* out = normalised + at;
        Dtype* to = dx + at;
#pragma GCC ivdep
        for (int i = 0; i < planes.size; ++i) { to[i] = (g[i] - mean - slope * out[i]) * factor; }
      }
    }
  });
}

}  // namespace caffe

#endif  // CAFFE_UTIL_BATCH_NORM_HPP_
