#include "caffe/util/block_layers.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "caffe/layers/global_pooling_layer.hpp"
#include "caffe/util/channel_blocks.hpp"
#include "caffe/util/parallel.hpp"

namespace caffe {

namespace {

/// Values that one thread takes at a time: some 10 microseconds.
constexpr int kGrain = 1 << 15;

template <typename Dtype>
int BlocksAtATime(const ImageBlocks<Dtype>& map) {
  return 1 + kGrain / std::max<int>(1, map.block_size());
}

/// The means of a block's planes, each the sum as SimdTotal (simd.hpp) adds it: by position modulo the lanes of a
/// vector, these by halves, then in double the positions that are left.
template <typename Dtype>
void PoolBlock(const Dtype* from, const int pixels, Dtype* to) {
  constexpr int L = SimdLanes<Dtype>();
  SimdT<Dtype, L> sum[L] = {};
  int p = 0;
  for (; p + L <= pixels; p += L) {
    for (int i = 0; i < L; ++i) { sum[i] += SimdLoad<Dtype, L>(from + (p + i) * L); }
  }
  for (int half = L / 2; half >= 1; half /= 2) {
    for (int i = 0; i < half; ++i) { sum[i] = sum[i] + sum[i + half]; }
  }
  for (int c = 0; c < L; ++c) {
    double total = sum[0][c];
    for (int q = p; q < pixels; ++q) { total += from[q * L + c]; }
    to[c] = static_cast<Dtype>(total / pixels);
  }
}

template <typename Dtype>
ImagePass Pool(const Blob<Dtype>& bottom, Blob<Dtype>* top) {
  const auto maps = BlocksOf(bottom);
  const auto means = NewBlocks(top);
  return [=](const int n) {
    const auto from = maps->Image(n);
    const auto to = means->Image(n);
    ParallelFor(from.blocks(), BlocksAtATime(from), [&](const int begin, const int end) {
      for (int b = begin; b < end; ++b) {
        PoolBlock(from.values + b * from.block_size(), from.pixels(), to.values + b * to.block_size());
      }
    });
  };
}

/// y = op(x, a, b) with a and b of the value's channel, a vector for each block.
template <typename Dtype, typename Op>
void AlongChannels(const ImageBlocks<const Dtype>& from, const Dtype* a, const Dtype* b, const Op op,
                   const ImageBlocks<Dtype>& to) {
  constexpr int L = SimdLanes<Dtype>();
  typedef SimdT<Dtype, L> V;
  ParallelFor(from.blocks(), BlocksAtATime(from), [&](const int begin, const int end) {
    for (int i = begin; i < end; ++i) {
      const V va = SimdLoad<Dtype, L>(a + i * L), vb = SimdLoad<Dtype, L>(b + i * L);
      const Dtype* x = from.values + i * from.block_size();
      Dtype* y = to.values + i * from.block_size();
      for (size_t v = 0; v < from.block_size(); v += L) {
        SimdStore<Dtype, L>(op(SimdLoad<Dtype, L>(x + v), va, vb), y + v);
      }
    }
  });
}

/// The values of channels, and 0 up to the end of the last block.
template <typename Dtype>
std::vector<Dtype> ByChannel(const Dtype* values, const int channels) {
  constexpr int L = SimdLanes<Dtype>();
  std::vector<Dtype> padded((channels + L - 1) / L * L);
  if (values != nullptr) { std::copy_n(values, channels, padded.begin()); }
  return padded;
}

template <typename Dtype, typename Op>
ImagePass AlongChannelsPass(const Blob<Dtype>& bottom, const std::vector<Dtype>& a, const std::vector<Dtype>& b,
                            const Op op, Blob<Dtype>* top) {
  const auto maps = BlocksOf(bottom);
  const auto results = NewBlocks(top);
  return [=](const int n) { AlongChannels<Dtype>(maps->Image(n), a.data(), b.data(), op, results->Image(n)); };
}

/// Factors by image and channel, N x C, as vectors for the blocks of an image. They may have been written as N x C x 1
/// x 1 in blocks, which are one after another.
template <typename Dtype>
class Gates {
 public:
  explicit Gates(const Blob<Dtype>& flat) : channels_(flat.shape(1)), plain_(nullptr) {
    const Blob<Dtype> shaped(flat.shape(0), channels_, 1, 1);
    blocks_ = boost::dynamic_pointer_cast<const ChannelBlocks<Dtype>>(flat.data()->deferred());
    if (blocks_ && !blocks_->HasShape(shaped)) { blocks_.reset(); }
    if (!flat.data()->deferred()) { plain_ = flat.cpu_data(); }
  }

  bool known() const { return blocks_ || plain_ != nullptr; }

  std::vector<Dtype> Of(const int n) const {
    const Dtype* values = blocks_ ? blocks_->Image(n).values : plain_ + static_cast<size_t>(n) * channels_;
    return ByChannel(values, channels_);
  }

 private:
  int channels_;
  shared_ptr<const ChannelBlocks<Dtype>> blocks_;
  const Dtype* plain_;
};

template <typename Dtype>
ImagePass Scale(Layer<Dtype>* layer, const vector<Blob<Dtype>*>& bottom, Blob<Dtype>* top) {
  const ScaleParameter& param = layer->layer_param().scale_param();
  const int axis = bottom[0]->CanonicalAxisIndex(param.axis()), channels = bottom[0]->shape(1);
  // The 0 is added where there is no bias, too, as the layer does: it makes a 0 of -0.
  const auto op = [](const auto x, const auto a, const auto b) { return x * a + b; };
  if (bottom.size() == 1) {
    const Blob<Dtype>& factors = *layer->blobs()[0];
    if (factors.num_axes() != 1 || axis != 1 || layer->blobs().size() != (param.bias_term() ? 2 : 1)) {
      return nullptr;
    }
    const std::vector<Dtype> shifts = ByChannel(param.bias_term() ? layer->blobs()[1]->cpu_data() : nullptr, channels);
    return AlongChannelsPass(*bottom[0], ByChannel(factors.cpu_data(), channels), shifts, op, top);
  }
  if (bottom[1]->num_axes() != 2 || axis != 0 || param.bias_term()) { return nullptr; }
  const std::vector<Dtype> shifts = ByChannel<Dtype>(nullptr, channels);
  const Gates<Dtype> gates(*bottom[1]);
  if (!gates.known()) { return nullptr; }
  const auto maps = BlocksOf(*bottom[0]);
  const auto results = NewBlocks(top);
  return [=](const int n) {
    AlongChannels<Dtype>(maps->Image(n), gates.Of(n).data(), shifts.data(), op, results->Image(n));
  };
}

template <typename Dtype>
ImagePass BatchNorm(Layer<Dtype>* layer, const Blob<Dtype>& bottom, Blob<Dtype>* top) {
  const BatchNormParameter& param = layer->layer_param().batch_norm_param();
  const bool stored = param.has_use_global_stats() ? param.use_global_stats() : layer->layer_param().phase() == TEST;
  if (!stored) { return nullptr; }
  const auto& blobs = layer->blobs();
  const Dtype weight = blobs[2]->cpu_data()[0], scale = weight == 0 ? 0 : 1 / weight, eps = param.eps();
  const int channels = bottom.shape(1);
  std::vector<Dtype> means(channels), factors(channels);
  for (int c = 0; c < channels; ++c) {
    means[c] = scale * blobs[0]->cpu_data()[c];
    const Dtype deviation = std::sqrt(scale * blobs[1]->cpu_data()[c] + eps);
    factors[c] = 1 / deviation;
  }
  return AlongChannelsPass(
      bottom, ByChannel(means.data(), channels), ByChannel(factors.data(), channels),
      [](const auto x, const auto a, const auto b) { return (x - a) * b; }, top);
}

template <typename Dtype>
ImagePass Permute(const PermuteParameter& param, const Blob<Dtype>& bottom, Blob<Dtype>* top) {
  constexpr int L = SimdLanes<Dtype>();
  const int order[] = {0, 2, 3, 1};
  if (param.order_size() != 4 || !std::equal(order, order + 4, param.order().begin())) { return nullptr; }
  const auto maps = BlocksOf(bottom);
  Dtype* values = top->mutable_cpu_data();
  return [=](const int n) {
    const auto map = maps->Image(n);
    const int channels = map.channels, blocks = map.blocks();
    Dtype* to = values + static_cast<size_t>(n) * map.pixels() * channels;
    ParallelFor(map.pixels(), 1 + kGrain / channels, [&](const int begin, const int end) {
      for (int i = begin; i < end; ++i) {
        for (int b = 0; b < blocks; ++b) {
          std::memcpy(to + static_cast<size_t>(i) * channels + b * L, map.values + b * map.block_size() + i * L,
                      std::min(L, channels - b * L) * sizeof(Dtype));
        }
      }
    });
  };
}

}  // namespace

template <typename Dtype>
bool KnowsBlocks(const Layer<Dtype>& layer) {
  const std::string& type = layer.layer_param().type();
  return type == "Scale" || type == "BatchNorm" || type == "Permute" ||
         dynamic_cast<const GlobalPoolingLayer<Dtype>*>(&layer) != nullptr;
}

template <typename Dtype>
ImagePass PassOfBlocks(Layer<Dtype>* layer, const std::vector<Blob<Dtype>*>& bottom, Blob<Dtype>* top) {
  const LayerParameter& param = layer->layer_param();
  const std::string& type = param.type();
  if (type == "Scale") { return Scale(layer, bottom, top); }
  if (type == "BatchNorm") { return BatchNorm(layer, *bottom[0], top); }
  if (type == "Permute") { return Permute(param.permute_param(), *bottom[0], top); }
  return Pool(*bottom[0], top);
}

template bool KnowsBlocks<float>(const Layer<float>&);
template bool KnowsBlocks<double>(const Layer<double>&);
template ImagePass PassOfBlocks<float>(Layer<float>*, const std::vector<Blob<float>*>&, Blob<float>*);
template ImagePass PassOfBlocks<double>(Layer<double>*, const std::vector<Blob<double>*>&, Blob<double>*);

}  // namespace caffe
