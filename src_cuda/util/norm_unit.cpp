#include "caffe/util/norm_unit.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <typeinfo>
#include <vector>

#include <boost/make_shared.hpp>

#include "caffe/layers/batch_norm_layer.hpp"
#include "caffe/layers/relu6_layer.hpp"
#include "caffe/layers/scale_layer.hpp"
#include "caffe/util/batch_norm.hpp"

namespace caffe {

namespace {

/// The class is the fork's, and this is protected there.
template <typename Dtype>
class OpenScale : public ScaleLayer<Dtype> {
 public:
  static Blob<Dtype>& Input(ScaleLayer<Dtype>* layer) { return layer->*&OpenScale::temp_; }
};

/// The values of another memory, which stay there as long as this refers to it (LeaveToOthers).
class ValuesOf : public DeferredValues {
 public:
  ValuesOf(const shared_ptr<SyncedMemory>& of, const size_t bytes) : of_(of), bytes_(bytes) {}
  void WriteTo(void* values) const override { std::memcpy(values, of_->cpu_data(), bytes_); }
  const shared_ptr<SyncedMemory>& of() const { return of_; }

 private:
  const shared_ptr<SyncedMemory> of_;
  const size_t bytes_;
};

/// y = n, as a ReLU6Op.
template <typename Dtype>
struct Same {
  Dtype Value(const Dtype x) const { return x; }
  Dtype Slope(Dtype) const { return 1; }
};

template <typename Dtype, typename Op>
struct ScaleThen {
  static constexpr bool kSloped = !std::is_same<Op, Same<Dtype>>::value;

  Op op;
  const Dtype* scale;
  const Dtype* bias;  // or null
  Dtype* scale_diff;  // these two are null if they are not learned
  Dtype* bias_diff;

  struct OfChannel {
    Op op;
    Dtype scale, bias;
    Dtype Value(const Dtype n) const { return op.Value(n * scale + bias); }
  };

  OfChannel Of(const int channel) const { return {op, scale[channel], bias == nullptr ? Dtype(0) : bias[channel]}; }
  Dtype Slope(const Dtype y) const { return op.Slope(y); }
  Dtype ScaleOf(const int channel) const { return scale[channel]; }
  void AddGradients(const int channel, const double sum, const double products) const {
    if (scale_diff != nullptr) { scale_diff[channel] += static_cast<Dtype>(products); }
    if (bias_diff != nullptr) { bias_diff[channel] += static_cast<Dtype>(sum); }
  }
};

template <typename Dtype, typename Op>
ScaleThen<Dtype, Op> Then(Layer<Dtype>* scale, const Op op, const bool backward) {
  const std::vector<shared_ptr<Blob<Dtype>>>& blobs = scale->blobs();
  const bool biased = blobs.size() > 1;
  const auto diff = [&](const int i) {
    return backward && scale->param_propagate_down(i) ? blobs[i]->mutable_cpu_diff() : nullptr;
  };
  return {op, blobs[0]->cpu_data(), biased ? blobs[1]->cpu_data() : nullptr, diff(0), biased ? diff(1) : nullptr};
}

/// visit(op) with the ReLU6 of a unit, or without one.
template <typename Dtype, typename Visit>
void WithActivation(const Layer<Dtype>* relu6, const Visit& visit) {
  if (relu6 == nullptr) {
    visit(Same<Dtype>());
  } else {
    const ReLU6Parameter& param = relu6->layer_param().relu6_param();
    visit(ReLU6Op<Dtype>{static_cast<Dtype>(param.negative_slope()), static_cast<Dtype>(param.threshold())});
  }
}

/// A layer of this very class, or null: one derived from it may compute something else.
template <typename Kind, typename Dtype>
Kind* As(const shared_ptr<Layer<Dtype>>& layer) {
  const Layer<Dtype>& found = *layer;
  return typeid(found) == typeid(Kind) ? static_cast<Kind*>(layer.get()) : nullptr;
}

}  // namespace

template <typename Dtype>
int NormUnit<Dtype>::LayersFrom(const Layers& layers, const Blobs& bottoms, const Blobs& tops, const int first,
                                const int end) {
  const BatchNormLayer<Dtype>* norm = As<BatchNormLayer<Dtype>>(layers[first]);
  if (norm == nullptr || !OpenBatchNorm<Dtype>::uses_batch(*norm) || first + 2 > end) { return 0; }
  const Blob<Dtype>* blob = bottoms[first][0];
  const auto in_place = [&](const int i) {
    return bottoms[i].size() == 1 && tops[i].size() == 1 && bottoms[i][0] == blob && tops[i][0] == blob &&
           layers[i]->loss(0) == 0;
  };
  if (!in_place(first) || !in_place(first + 1) || As<ScaleLayer<Dtype>>(layers[first + 1]) == nullptr ||
      blob->num_axes() < 2) {
    return 0;
  }
  const ScaleParameter& scale = layers[first + 1]->layer_param().scale_param();
  const bool of_channels =
      (scale.axis() == 1 || scale.axis() + blob->num_axes() == 1) && layers[first + 1]->blobs()[0]->num_axes() == 1;
  // Blobs that the net's text gives beside those that the layer needs: it takes the last one as its bias, or none.
  const bool usual = layers[first + 1]->blobs().size() == (scale.bias_term() ? 2 : 1);
  if (!of_channels || !usual || blob->count() == 0) { return 0; }
  const bool relu6 = first + 3 <= end && in_place(first + 2) && As<ReLU6Layer<Dtype>>(layers[first + 2]) != nullptr;
  return relu6 ? 3 : 2;
}

template <typename Dtype>
void NormUnit<Dtype>::Forward(const Layers& layers, const Blobs& bottoms, const Blobs& tops, const int first,
                              const int count) {
  for (int i = first; i < first + count; ++i) { layers[i]->Reshape(bottoms[i], tops[i]); }
  const BatchNormParts<Dtype> norm = OpenBatchNorm<Dtype>::Parts(As<BatchNormLayer<Dtype>>(layers[first]));
  Blob<Dtype>* blob = bottoms[first][0];
  const shared_ptr<SyncedMemory>& input = OpenScale<Dtype>::Input(As<ScaleLayer<Dtype>>(layers[first + 1])).data();
  input->Drop();  // which refers to the values of the pass before
  WithActivation(count > 2 ? layers[first + 2].get() : nullptr,
                 [&](const auto op) { BatchNormForward(norm, *blob, blob, Then(layers[first + 1].get(), op, false)); });
  const shared_ptr<SyncedMemory>& values = norm.normalised->data();
  input->Defer(boost::make_shared<ValuesOf>(values, std::min(values->size(), input->size())));
}

template <typename Dtype>
bool NormUnit<Dtype>::Backward(const Layers& layers, const Blobs& bottoms, const int first, const int count) {
  const BatchNormParts<Dtype> norm = OpenBatchNorm<Dtype>::Parts(As<BatchNormLayer<Dtype>>(layers[first]));
  const Blob<Dtype>& input = OpenScale<Dtype>::Input(As<ScaleLayer<Dtype>>(layers[first + 1]));
  if (input.count() != norm.normalised->count()) { return false; }
  const ValuesOf* kept = dynamic_cast<const ValuesOf*>(input.data()->deferred().get());
  if (kept == nullptr || kept->of() != norm.normalised->data()) { return false; }
  Blob<Dtype>* blob = bottoms[first][0];
  const Dtype* y = blob->cpu_data();
  const Dtype* dy = blob->cpu_diff();
  WithActivation(count > 2 ? layers[first + 2].get() : nullptr,
                 [&](const auto op) { BatchNormBackward(norm, y, dy, blob, Then(layers[first + 1].get(), op, true)); });
  return true;
}

INSTANTIATE_CLASS(NormUnit);

}  // namespace caffe
