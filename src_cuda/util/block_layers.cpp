#include "caffe/util/block_layers.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "caffe/layers/global_pooling_layer.hpp"
#include "caffe/util/parallel.hpp"

namespace caffe {

namespace {

/// Values that one thread takes at a time: some 10 microseconds.
constexpr int kGrain = 1 << 15;

template <typename Dtype>
int BlocksAtATime(const ChannelBlocks<Dtype>& map) {
  return 1 + kGrain / std::max<int>(1, map.block_size());
}

/// The sum of a plane as SimdTotal (simd.hpp) adds it: by position modulo the lanes of a vector, these by halves, then
/// in double the positions that are left.
template <typename Dtype>
void PoolBlock(const Dtype* from, const int pixels, const int channels, Dtype* to) {
  constexpr int L = SimdLanes<Dtype>();
  typedef SimdT<Dtype, L> V;
  V sum[L] = {};
  int p = 0;
  for (; p + L <= pixels; p += L) {
    for (int i = 0; i < L; ++i) { sum[i] += SimdLoad<Dtype, L>(from + (p + i) * L); }
  }
  for (int half = L / 2; half >= 1; half /= 2) {
    for (int i = 0; i < half; ++i) { sum[i] = sum[i] + sum[i + half]; }
  }
  for (int c = 0; c < channels; ++c) {
    double total = sum[0][c];
    for (int q = p; q < pixels; ++q) { total += from[q * L + c]; }
    to[c] = static_cast<Dtype>(total / pixels);
  }
}

template <typename Dtype>
void Pool(const ChannelBlocks<Dtype>& map, Dtype* to) {
  constexpr int L = SimdLanes<Dtype>();
  const int in_image = map.blocks();
  ParallelFor(map.num() * in_image, BlocksAtATime(map), [&](const int begin, const int end) {
    for (int i = begin; i < end; ++i) {
      const int first = i % in_image * L;
      PoolBlock(map.values() + i * map.block_size(), map.pixels(), std::min(L, map.channels() - first),
                to + static_cast<size_t>(i / in_image) * map.channels() + first);
    }
  });
}

/// y = op(x, a, b) with a and b of the value's channel. `b` may be null: 0. each: there are factors for each image.
template <typename Dtype, typename Op>
void AlongChannels(const ChannelBlocks<Dtype>& map, const Dtype* a, const Dtype* b, const bool each, const Op op,
                   ChannelBlocks<Dtype>* to) {
  constexpr int L = SimdLanes<Dtype>();
  typedef SimdT<Dtype, L> V;
  const int in_image = map.blocks();
  ParallelFor(map.num() * in_image, BlocksAtATime(map), [&](const int begin, const int end) {
    for (int i = begin; i < end; ++i) {
      const int first = i % in_image * L, some = std::min(L, map.channels() - first);
      const int place = (each ? i / in_image * map.channels() : 0) + first;
      V va = {}, vb = {};
      for (int l = 0; l < some; ++l) {
        va[l] = a[place + l];
        if (b != nullptr) { vb[l] = b[place + l]; }
      }
      const Dtype* x = map.values() + i * map.block_size();
      Dtype* y = to->values() + i * map.block_size();
      for (size_t v = 0; v < map.block_size(); v += L) {
        SimdStore<Dtype, L>(op(SimdLoad<Dtype, L>(x + v), va, vb), y + v);
      }
    }
  });
}

template <typename Dtype>
bool Scale(Layer<Dtype>* layer, const vector<Blob<Dtype>*>& bottom, Blob<Dtype>* top) {
  const ScaleParameter& param = layer->layer_param().scale_param();
  const bool own = bottom.size() == 1;
  const Blob<Dtype>& factors = own ? *layer->blobs()[0] : *bottom[1];
  const int axis = bottom[0]->CanonicalAxisIndex(param.axis());
  const bool by_channel = factors.num_axes() == 1 && axis == 1;
  const bool by_image = factors.num_axes() == 2 && axis == 0;
  if (!by_channel && !by_image) { return false; }
  const Dtype* shifts = param.bias_term() ? layer->blobs().back()->cpu_data() : nullptr;
  const Dtype* factor = factors.cpu_data();
  const auto map = BlocksOf(*bottom[0]);
  // The 0 is added where there is no bias, too, as the layer does: it makes a 0 of -0.
  AlongChannels(
      *map, factor, shifts, by_image, [](const auto x, const auto a, const auto b) { return x * a + b; },
      NewBlocks(top).get());
  return true;
}

template <typename Dtype>
bool BatchNorm(Layer<Dtype>* layer, const Blob<Dtype>& bottom, Blob<Dtype>* top) {
  const BatchNormParameter& param = layer->layer_param().batch_norm_param();
  if (param.has_use_global_stats() && !param.use_global_stats()) { return false; }
  const auto& blobs = layer->blobs();
  const Dtype weight = blobs[2]->cpu_data()[0], scale = weight == 0 ? 0 : 1 / weight, eps = param.eps();
  const int channels = bottom.shape(1);
  std::vector<Dtype> means(channels), factors(channels);
  for (int c = 0; c < channels; ++c) {
    means[c] = scale * blobs[0]->cpu_data()[c];
    const Dtype deviation = std::sqrt(scale * blobs[1]->cpu_data()[c] + eps);
    factors[c] = 1 / deviation;
  }
  const auto map = BlocksOf(bottom);
  AlongChannels(
      *map, means.data(), factors.data(), false, [](const auto x, const auto a, const auto b) { return (x - a) * b; },
      NewBlocks(top).get());
  return true;
}

template <typename Dtype>
bool Permute(const PermuteParameter& param, const Blob<Dtype>& bottom, Blob<Dtype>* top) {
  constexpr int L = SimdLanes<Dtype>();
  const int order[] = {0, 2, 3, 1};
  if (param.order_size() != 4 || !std::equal(order, order + 4, param.order().begin())) { return false; }
  const auto map = BlocksOf(bottom);
  Dtype* to = top->mutable_cpu_data();
  const int pixels = map->pixels(), channels = map->channels(), blocks = map->blocks();
  ParallelFor(map->num() * pixels, 1 + kGrain / channels, [&](const int begin, const int end) {
    for (int i = begin; i < end; ++i) {
      const Dtype* from = map->values() + i / pixels * map->image_size() + static_cast<size_t>(i % pixels) * L;
      Dtype* y = to + static_cast<size_t>(i) * channels;
      for (int block = 0; block < blocks; ++block) {
        std::memcpy(y + block * L, from + block * map->block_size(), std::min(L, channels - block * L) * sizeof(Dtype));
      }
    }
  });
  return true;
}

}  // namespace

template <typename Dtype>
bool ForwardOfBlocks(Layer<Dtype>* layer, const std::vector<Blob<Dtype>*>& bottom,
                     const std::vector<Blob<Dtype>*>& top) {
  if (bottom.empty() || top.size() != 1 || !HasBlocks(*bottom[0])) { return false; }
  const LayerParameter& param = layer->layer_param();
  const std::string& type = param.type();
  if (type == "Pooling" && dynamic_cast<GlobalPoolingLayer<Dtype>*>(layer) != nullptr) {
    Pool(*BlocksOf(*bottom[0]), top[0]->mutable_cpu_data());
    return true;
  }
  if (type == "Scale") { return Scale(layer, bottom, top[0]); }
  if (type == "BatchNorm") { return BatchNorm(layer, *bottom[0], top[0]); }
  if (type == "Permute") { return Permute(param.permute_param(), *bottom[0], top[0]); }
  return false;
}

template bool ForwardOfBlocks<float>(Layer<float>*, const std::vector<Blob<float>*>&, const std::vector<Blob<float>*>&);
template bool ForwardOfBlocks<double>(Layer<double>*, const std::vector<Blob<double>*>&,
                                      const std::vector<Blob<double>*>&);

}  // namespace caffe
