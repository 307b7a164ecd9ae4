// Net::ForwardFromTo (compat/net_forward.hpp). A range of layers is run one by one, as in the fork. A whole forward
// pass on the CPU in phase TEST, which no backward pass follows, is computed as runtimes made for inference do it:
//
// - feature maps are kept in blocks of channels (util/channel_blocks.hpp) from convolution to convolution. Layers that
//   do not know them find their bottoms in a blob's order, written when they ask for it, and so does everybody else;
// - an activation after a convolution is applied to the sums in registers: ReLU, ReLU6 and Clip in place, and a hard
//   swish, be it one layer or the four that stock Caffe has for it;
// - layers that compute each output from the inputs of the same index pass over memory once, together.
//
// Every blob gets the values that the layers one by one would give it.
#include <string>
#include <vector>

#include <boost/make_shared.hpp>

#include "caffe/layers/conv_layer.hpp"
#include "caffe/net.hpp"
#include "caffe/util/block_conv.hpp"
#include "caffe/util/block_layers.hpp"
#include "caffe/util/channel_blocks.hpp"
#include "caffe/util/pointwise.hpp"
#include "caffe/util/pointwise_pieces.hpp"

namespace caffe {

namespace {

/// min(max(x + shift, low), high) of sums that a convolution keeps: what is between the layers of a hard swish.
template <typename Dtype>
class Ramp : public DeferredValues {
 public:
  Ramp(const shared_ptr<const ChannelBlocks<Dtype>>& sums, const Dtype shift, const Bounds<Dtype>& bounds)
      : sums_(sums), shift_(shift), bounds_(bounds) {}

  void WriteTo(void* values) const override {
    sums_->WriteTo(values);
    Dtype* x = static_cast<Dtype*>(values);
    const size_t count = static_cast<size_t>(sums_->num()) * sums_->channels() * sums_->pixels();
    for (size_t i = 0; i < count; ++i) { x[i] = AtMost(AtLeast(x[i] + shift_, bounds_.low), bounds_.high); }
  }

 private:
  shared_ptr<const ChannelBlocks<Dtype>> sums_;
  Dtype shift_;
  Bounds<Dtype> bounds_;
};

template <typename Dtype>
struct WholePass {
  const vector<shared_ptr<Layer<Dtype>>>& layers;
  const vector<vector<Blob<Dtype>*>>& bottoms;
  const vector<vector<Blob<Dtype>*>>& tops;

  Dtype Run() const {
    Dtype loss = 0;
    {
      const SyncedMemory::WholePass pass;
      const int count = layers.size();
      for (int i = 0; i < count;) {
        int end = Convolution(i);
        if (end == i) { end = Chain(i); }
        if (end == i) { end = Single(i); }
        if (end == i) {
          loss += layers[i]->Forward(bottoms[i], tops[i]);
          ++end;
        }
        i = end;
      }
    }
    for (const vector<Blob<Dtype>*>& of_layer : tops) {
      for (const Blob<Dtype>* top : of_layer) { top->data()->WriteIfExposed(); }
    }
    return loss;
  }

 private:
  bool Plain(const int i) const {
    for (int top = 0; top < tops[i].size(); ++top) {
      if (layers[i]->loss(top) != 0) { return false; }
    }
    return !layers[i]->IsShared();
  }

  /// Whether layer i is a plain one of this type, with one bottom and one top.
  bool Is(const int i, const std::string& type) const {
    return i < layers.size() && layers[i]->layer_param().type() == type && bottoms[i].size() == 1 &&
           tops[i].size() == 1 && Plain(i);
  }

  bool InPlace(const int i, const Blob<Dtype>* blob) const {
    return bottoms[i].size() == 1 && tops[i].size() == 1 && bottoms[i][0] == blob && tops[i][0] == blob;
  }

  /// The activation after a convolution.
  struct Activation {
    AfterConv<Dtype> after;
    int end;                      // the number of the layer after it
    Blob<Dtype>* ramp = nullptr;  // of a hard swish of four layers
    Blob<Dtype>* to;              // where the result goes
  };

  /// The layers after convolution i, whose top is `blob`.
  Activation ActivationAt(const int i, Blob<Dtype>* blob) const {
    Activation found;
    found.end = i;
    found.to = blob;
    if (i < layers.size() && InPlace(i, blob) && Plain(i) && KeepsWithin(*layers[i], &found.after.bounds)) {
      ++found.end;
      return found;
    }
    HardSwish(i, blob, &found);
    return found;
  }

  /// A Split whose tops share the memory of `blob`: whether one of them, or `blob` itself, is `other`.
  bool Same(const int split, const Blob<Dtype>* blob, const Blob<Dtype>* other) const {
    if (other == blob) { return true; }
    if (split < 0) { return false; }
    for (const Blob<Dtype>* top : tops[split]) {
      if (top == other) { return true; }
    }
    return false;
  }

  /// x min(max(x + 3, 0), 6) / 6: a HardSwish, or Power (x + 3), ReLU6, Eltwise (product), Power (times 1/6).
  void HardSwish(const int begin, Blob<Dtype>* blob, Activation* found) const {
    int i = begin, split = -1;
    if (i < layers.size() && layers[i]->layer_param().type() == "Split" && bottoms[i][0] == blob && Plain(i)) {
      split = i++;
    }
    AfterConv<Dtype> after;
    after.swish = true;
    if (Is(i, "HardSwish") && Same(split, blob, bottoms[i][0])) {
      after.shift = 3;
      after.bounds = {Dtype(0), Dtype(6)};
      after.factor = Dtype(1. / 6.);
      *found = {after, i + 1, nullptr, tops[i][0]};
      return;
    }
    if (!Is(i, "Power") || !Is(i + 1, "ReLU6") || i + 3 >= layers.size() || !Is(i + 3, "Power")) { return; }
    const PowerParameter& shift = layers[i]->layer_param().power_param();
    const PowerParameter& factor = layers[i + 3]->layer_param().power_param();
    const EltwiseParameter& product = layers[i + 2]->layer_param().eltwise_param();
    Blob<Dtype>* ramp = tops[i][0];
    Blob<Dtype>* to = tops[i + 2].size() == 1 ? tops[i + 2][0] : nullptr;
    const bool wired = Same(split, blob, bottoms[i][0]) && ramp != bottoms[i][0] && InPlace(i + 1, ramp) &&
                       layers[i + 2]->layer_param().type() == "Eltwise" && Plain(i + 2) && bottoms[i + 2].size() == 2 &&
                       to != nullptr && InPlace(i + 3, to) && to != ramp && !Same(split, blob, to) &&
                       ((Same(split, blob, bottoms[i + 2][0]) && bottoms[i + 2][1] == ramp) ||
                        (Same(split, blob, bottoms[i + 2][1]) && bottoms[i + 2][0] == ramp));
    const bool computes = shift.power() == 1 && shift.scale() == 1 && factor.power() == 1 && factor.shift() == 0 &&
                          factor.scale() != 0 && product.operation() == EltwiseParameter_EltwiseOp_PROD &&
                          KeepsWithin(*layers[i + 1], &after.bounds);
    if (!wired || !computes) { return; }
    after.shift = shift.shift();
    after.factor = factor.scale();
    *found = {after, i + 4, ramp, to};
  }

  /// Runs a convolution with its activation; the number of the layer after them, or i.
  int Convolution(const int i) const {
    if (tops[i].size() != 1 || bottoms[i].size() != 1 || !Plain(i)) { return i; }
    auto* layer = dynamic_cast<ConvolutionLayer<Dtype>*>(layers[i].get());
    if (layer == nullptr) { return i; }
    const Blob<Dtype>& input = *bottoms[i][0];
    Blob<Dtype>* top = tops[i][0];
    layer->Reshape(bottoms[i], tops[i]);
    BlockConv<Dtype> conv;
    if (input.num_axes() != 4 || input.count() == 0 || !layer->AsBlockConv(&conv)) { return i; }
    const Activation activation = ActivationAt(i + 1, top);
    for (int l = i + 1; l < activation.end; ++l) {
      if (layers[l]->layer_param().type() == "Split") {
        layers[l]->Forward(bottoms[l], tops[l]);  // its tops share the memory of its bottom
      } else {
        layers[l]->Reshape(bottoms[l], tops[l]);
      }
    }
    const AfterConv<Dtype>& after = activation.after;
    // Taken before the new blocks, which may not be those of the input.
    const bool planes = !conv.depthwise && !HasBlocks(input) && conv.channels < 4 * SimdLanes<Dtype>();
    shared_ptr<const ChannelBlocks<Dtype>> from;
    if (!planes) { from = BlocksOf(input); }
    shared_ptr<ChannelBlocks<Dtype>> sums;
    if (after.swish && activation.to != top) { sums = NewBlocks(top); }
    const shared_ptr<ChannelBlocks<Dtype>> to = NewBlocks(activation.to);
    if (planes) {
      ConvOfPlanes(conv, input.shape(0), input.cpu_data(), after, sums.get(), to.get());
    } else {
      ConvOfBlocks(conv, *from, after, sums.get(), to.get());
    }
    if (activation.ramp != nullptr) {
      activation.ramp->data()->Defer(boost::make_shared<Ramp<Dtype>>(sums, after.shift, after.bounds));
    }
    return activation.end;
  }

  /// Runs a layer that knows blocks of channels; the number of the layer after it, or i.
  int Single(const int i) const {
    if (bottoms[i].empty() || !Plain(i) || !HasBlocks(*bottoms[i][0])) { return i; }
    layers[i]->Reshape(bottoms[i], tops[i]);
    return ForwardOfBlocks(layers[i].get(), bottoms[i], tops[i]) ? i + 1 : i;
  }

  /// Runs layers that can be computed in pieces; the number of the layer after them, or i.
  int Chain(const int i) const {
    const auto may_be = [this](const int l) {
      const std::string& type = layers[l]->layer_param().type();
      return type == "Power" || type == "ReLU6" || type == "ReLU" || type == "Clip" || type == "Eltwise" ||
             type == "HardSwish" || type == "HardSigmoid";
    };
    int end = i, computed = 0;
    for (; end < layers.size(); ++end) {
      const bool split = layers[end]->layer_param().type() == "Split";
      if ((!split && !may_be(end)) || !Plain(end)) { break; }
      computed += !split;
    }
    if (computed == 0) { return i; }
    const Blob<Dtype>& first = *bottoms[i][0];
    const bool blocks = HasBlocks(first);
    if (computed < 2 && !blocks) { return i; }
    const size_t count = blocks ? BlocksOf(first)->count() : first.count();
    vector<shared_ptr<const DeferredValues>> held;  // until they are read
    vector<Piece> pieces;
    int l = i;
    for (; l < end; ++l) {
      layers[l]->Reshape(bottoms[l], tops[l]);
      bool fits = true;
      for (const Blob<Dtype>* bottom : bottoms[l]) { fits = fits && bottom->shape() == first.shape(); }
      if (!fits) { break; }
      if (layers[l]->layer_param().type() == "Split") {
        layers[l]->Forward(bottoms[l], tops[l]);  // its tops share the memory of its bottom
        continue;
      }
      // What it computes is asked first, with no values: the top must not be changed if it is not computed here.
      if (!PieceOf<Dtype>(*layers[l], vector<const Dtype*>(bottoms[l].size()), nullptr)) { break; }
      vector<const Dtype*> x;
      for (const Blob<Dtype>* bottom : bottoms[l]) {
        if (blocks) {
          const shared_ptr<const ChannelBlocks<Dtype>> from = BlocksOf(*bottom);
          held.push_back(from);
          x.push_back(from->values());
        } else {
          x.push_back(bottom->cpu_data());
        }
      }
      Dtype* y = blocks ? NewBlocks(tops[l][0])->values() : tops[l][0]->mutable_cpu_data();
      pieces.push_back(PieceOf<Dtype>(*layers[l], x, y));
    }
    if (!pieces.empty()) { RunPieces(pieces, count); }
    return l;
  }
};

}  // namespace

#define NET_FORWARD(Dtype)                                                        \
  template <>                                                                     \
  Dtype Net<Dtype>::ForwardFromTo(int start, int end) {                           \
    CHECK_GE(start, 0);                                                           \
    CHECK_LT(end, layers_.size());                                                \
    const bool whole = start == 0 && end + 1 == layers_.size();                   \
    if (whole && phase_ == TEST && Caffe::mode() == Caffe::CPU && !debug_info_) { \
      return WholePass<Dtype>{layers_, bottom_vecs_, top_vecs_}.Run();            \
    }                                                                             \
    Dtype loss = 0;                                                               \
    for (int i = start; i <= end; ++i) {                                          \
      loss += layers_[i]->Forward(bottom_vecs_[i], top_vecs_[i]);                 \
      if (debug_info_) { ForwardDebugInfo(i); }                                   \
    }                                                                             \
    return loss;                                                                  \
  }
NET_FORWARD(float)
NET_FORWARD(double)

}  // namespace caffe
