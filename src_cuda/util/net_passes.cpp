// Net::ForwardFromTo and Net::BackwardFromTo (compat/net_passes.hpp). With a GPU, or with debug_info, the layers are
// run one by one, as in the fork. On the CPU a whole forward pass in phase TEST of a net without a layer that a
// backward pass needs (no loss, no force_backward) is that of util/net_forward.cpp; in all others, and in backward
// passes, layers that normalise are computed together (util/norm_unit.hpp).
#include <algorithm>
#include <vector>

#include "caffe/net.hpp"
#include "caffe/util/net_forward.hpp"
#include "caffe/util/norm_unit.hpp"

namespace caffe {

namespace {

/// The layers from `start` to `end`, with what belongs to each of them. together: layers may be computed together;
/// after(i) is called after each that is not.
template <typename Dtype, typename After>
Dtype ForwardLayers(const Net<Dtype>& net, const int start, const int end, const bool together, const After& after) {
  const auto& layers = net.layers();
  const auto &bottoms = net.bottom_vecs(), &tops = net.top_vecs();
  Dtype loss = 0;
  for (int i = start; i <= end; ++i) {
    const int unit = together ? NormUnit<Dtype>::LayersFrom(layers, bottoms, tops, i, end + 1) : 0;
    if (unit > 0) {
      NormUnit<Dtype>::Forward(layers, bottoms, tops, i, unit);
      i += unit - 1;
      continue;
    }
    loss += layers[i]->Forward(bottoms[i], tops[i]);
    after(i);
  }
  return loss;
}

/// The same backwards, from `start` down to `end`.
template <typename Dtype, typename After>
void BackwardLayers(const Net<Dtype>& net, const int start, const int end, const bool together, const After& after) {
  const auto& layers = net.layers();
  const auto &bottoms = net.bottom_vecs(), &tops = net.top_vecs();
  const auto whole = [&](const int i) {
    return net.layer_need_backward()[i] && net.bottom_need_backward()[i] == vector<bool>(1, true);
  };
  const auto as_unit = [&](const int last, const int unit) {
    const int first = last + 1 - unit;
    return together && first >= end && whole(last) && whole(last - 1) && whole(first) &&
           NormUnit<Dtype>::LayersFrom(layers, bottoms, tops, first, last + 1) == unit &&
           NormUnit<Dtype>::Backward(layers, bottoms, first, unit);
  };
  for (int i = start; i >= end; --i) {
    if (!net.layer_need_backward()[i]) { continue; }
    const int unit = as_unit(i, 3) ? 3 : as_unit(i, 2) ? 2 : 0;
    if (unit > 0) {
      i -= unit - 1;
      continue;
    }
    layers[i]->Backward(tops[i], net.bottom_need_backward()[i], bottoms[i]);
    after(i);
  }
}

}  // namespace

#define NET_PASSES(Dtype)                                                                                  \
  template <>                                                                                              \
  Dtype Net<Dtype>::ForwardFromTo(int start, int end) {                                                    \
    CHECK_GE(start, 0);                                                                                    \
    CHECK_LT(end, layers_.size());                                                                         \
    const bool ours = Caffe::mode() == Caffe::CPU && !debug_info_;                                         \
    const bool whole = start == 0 && end + 1 == layers_.size() &&                                          \
                       std::count(layer_need_backward_.begin(), layer_need_backward_.end(), true) == 0;    \
    if (ours && whole && phase_ == TEST) { return ForwardWhole<Dtype>(layers_, bottom_vecs_, top_vecs_); } \
    return ForwardLayers(*this, start, end, ours, [this](const int i) {                                    \
      if (debug_info_) { ForwardDebugInfo(i); }                                                            \
    });                                                                                                    \
  }                                                                                                        \
  template <>                                                                                              \
  void Net<Dtype>::BackwardFromTo(int start, int end) {                                                    \
    CHECK_GE(end, 0);                                                                                      \
    CHECK_LT(start, layers_.size());                                                                       \
    BackwardLayers(*this, start, end, Caffe::mode() == Caffe::CPU && !debug_info_, [this](const int i) {   \
      if (debug_info_) { BackwardDebugInfo(i); }                                                           \
    });                                                                                                    \
  }
NET_PASSES(float)
NET_PASSES(double)

}  // namespace caffe
