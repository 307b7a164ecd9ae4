// A whole forward pass on the CPU in phase TEST of a net without a layer that a backward pass needs
// (util/net_passes.cpp), computed as runtimes made for inference do it:
//
// - feature maps are kept in blocks of channels (util/channel_blocks.hpp) from convolution to convolution. Layers that
//   do not know them find their bottoms in a blob's order, written when they ask for it, and so does everybody else;
// - an activation after a convolution is applied to the sums in registers: ReLU, ReLU6 and Clip in place, and a hard
//   swish, be it one layer or the four that stock Caffe has for it;
// - layers that compute each output from the inputs of the same index pass over memory once, together;
// - a convolution, a depthwise one and a convolution after that are computed together, and the sum of a residual block
//   as the last of them is stored;
// - what is between them, or between the layers of a hard swish, is not stored, but computed again if somebody asks
//   (util/conv_chain.hpp);
// - image by image: the maps of one image stay in the caches, and several images are divided among the threads.
//
// Layers are gone through once in order. Those that know blocks are noted down, as functions of the number of an image,
// and run before a layer that does not, which may read what they write. Every blob gets the bits that the layers one by
// one would give it, but for -infinity before a ReLU or ReLU6, of which those make NaN, and this makes 0; which of two
// NaN their sum is; and a blob made larger after a pass of fewer images, which may have 0 where the fork has images of
// a pass before.
#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <boost/make_shared.hpp>

#include "caffe/layers/conv_layer.hpp"
#include "caffe/util/block_layers.hpp"
#include "caffe/util/channel_blocks.hpp"
#include "caffe/util/conv_chain.hpp"
#include "caffe/util/net_forward.hpp"
#include "caffe/util/parallel.hpp"
#include "caffe/util/pointwise.hpp"
#include "caffe/util/pointwise_pieces.hpp"

namespace caffe {

namespace {

template <typename Dtype>
class WholePass {
 public:
  WholePass(const vector<shared_ptr<Layer<Dtype>>>& layers, const vector<vector<Blob<Dtype>*>>& bottoms,
            const vector<vector<Blob<Dtype>*>>& tops)
      : layers_(layers), bottoms_(bottoms), tops_(tops) {}

  Dtype Run() {
    Dtype loss = 0;
    const int count = layers_.size();
    Forget();
    for (int i = 0; i < count;) {
      int end = Known(i);
      if (end == i) {
        const bool shares = OnlyShares(i);
        if (!shares) { RunNoted(); }
        loss += layers_[i]->Forward(bottoms_[i], tops_[i]);
        if (!shares) { TakeWritten(i); }
        ++end;
      }
      i = end;
    }
    RunNoted();
    return loss;
  }

 private:
  /// What the last pass did not store is made anew by this one: the input that it would be computed from may be written
  /// over. Not if a blob that this pass reads first, or one that is not of this net, shares the memory.
  void Forget() {
    vector<std::pair<const SyncedMemory*, const Blob<Dtype>*>> made;  // by layers that make it anew
    for (size_t i = 0; i < layers_.size(); ++i) {
      for (const Blob<Dtype>* top : tops_[i]) {
        if (!bottoms_[i].empty() && Unstored(*top) != nullptr) { made.emplace_back(top->data().get(), top); }
      }
    }
    std::sort(made.begin(), made.end());
    made.erase(std::unique(made.begin(), made.end()), made.end());
    for (size_t i = 0, end = 0; i < made.size(); i = end) {
      while (end < made.size() && made[end].first == made[i].first) { ++end; }
      const Blob<Dtype>* blob = made[i].second;
      if (blob->data().use_count() != static_cast<long>(end - i)) { continue; }
      const ConvImages<Dtype>& images = Unstored(*blob)->images();
      if (images.padded) { spare_ = images.padded; }
      blob->data()->Drop();
    }
  }

  static const NotKept<Dtype>* Unstored(const Blob<Dtype>& blob) {
    return blob.count() == 0 ? nullptr : dynamic_cast<const NotKept<Dtype>*>(blob.data()->deferred().get());
  }

  /// Values that somebody else may have written since they were deferred, through a pointer of before, are those that
  /// are in a blob's order.
  void TakeWritten(const int i) {
    const SyncedMemory::Passing passing;
    for (const Blob<Dtype>* top : tops_[i]) {
      if (top->count() > 0 && top->data()->writable_elsewhere() && top->data()->deferred()) {
        top->cpu_data();
        top->data()->Drop();
      }
    }
  }

  /// Notes down layers from i on that are known; the number of the layer after them, or i.
  int Known(const int i) {
    const SyncedMemory::Passing passing;
    int end = Convolution(i);
    if (end == i) { end = Chain(i); }
    if (end == i) { end = Single(i); }
    for (int l = i; l < end; ++l) {
      for (const Blob<Dtype>* top : tops_[l]) {
        if (top->count() > 0) { written_.push_back(top->data()); }
      }
    }
    return end;
  }

  /// Notes down what is to be done for each of `num` images.
  void Note(const int num, const ImagePass& pass) {
    if (num != noted_num_) { RunNoted(); }
    noted_num_ = num;
    noted_.push_back(pass);
  }

  void RunNoted() {
    const SyncedMemory::Passing passing;
    const auto images = [this](const int begin, const int end) {
      for (int n = begin; n < end; ++n) {
        for (const ImagePass& pass : noted_) { pass(n); }
      }
    };
    if (!noted_.empty()) {
      // Fewer images than threads: the threads divide each layer.
      if (noted_num_ < ParallelThreads()) {
        images(0, noted_num_);
      } else {
        ParallelFor(noted_num_, 1, images);
      }
    }
    noted_.clear();
    for (const shared_ptr<SyncedMemory>& memory : written_) { memory->WriteIfExposed(); }
    written_.clear();
  }

  /// Whether the layer's forward pass reads and writes no values: its top takes the memory of its bottom.
  bool OnlyShares(const int i) const {
    const std::string& type = layers_[i]->layer_param().type();
    return (type == "Split" || type == "Flatten" || type == "Reshape") && Plain(i);
  }

  bool Plain(const int i) const {
    for (int top = 0; top < tops_[i].size(); ++top) {
      if (layers_[i]->loss(top) != 0) { return false; }
    }
    return !layers_[i]->IsShared();
  }

  /// Whether layer i is a plain one of this type, with one bottom and one top.
  bool Is(const int i, const std::string& type) const {
    return i < layers_.size() && layers_[i]->layer_param().type() == type && bottoms_[i].size() == 1 &&
           tops_[i].size() == 1 && Plain(i);
  }

  bool InPlace(const int i, const Blob<Dtype>* blob) const {
    return bottoms_[i].size() == 1 && tops_[i].size() == 1 && bottoms_[i][0] == blob && tops_[i][0] == blob;
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
    if (i < layers_.size() && InPlace(i, blob) && Plain(i) && KeepsWithin(*layers_[i], &found.after.bounds)) {
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
    for (const Blob<Dtype>* top : tops_[split]) {
      if (top == other) { return true; }
    }
    return false;
  }

  /// x min(max(x + 3, 0), 6) / 6: a HardSwish, or Power (x + 3), ReLU6, Eltwise (product), Power (times 1/6). Not if
  /// another layer, or somebody who has a pointer, reads the sums or what is between these layers: it is not stored.
  void HardSwish(const int begin, Blob<Dtype>* blob, Activation* found) const {
    int i = begin, split = -1;
    if (i < layers_.size() && layers_[i]->layer_param().type() == "Split" && bottoms_[i][0] == blob && Plain(i)) {
      split = i++;
    }
    AfterConv<Dtype> after;
    after.swish = true;
    const auto seen = [](const Blob<Dtype>* one) { return one->count() > 0 && one->data()->exposed(); };
    if (Is(i, "HardSwish") && split < 0 && bottoms_[i][0] == blob && (tops_[i][0] == blob || !seen(blob))) {
      after.shift = 3;
      after.bounds = {Dtype(0), Dtype(6)};
      after.factor = Dtype(1. / 6.);
      *found = {after, i + 1, nullptr, tops_[i][0]};
      return;
    }
    if (!Is(i, "Power") || !Is(i + 1, "ReLU6") || i + 3 >= layers_.size() || !Is(i + 3, "Power")) { return; }
    const PowerParameter& shift = layers_[i]->layer_param().power_param();
    const PowerParameter& factor = layers_[i + 3]->layer_param().power_param();
    const EltwiseParameter& product = layers_[i + 2]->layer_param().eltwise_param();
    Blob<Dtype>* ramp = tops_[i][0];
    Blob<Dtype>* to = tops_[i + 2].size() == 1 ? tops_[i + 2][0] : nullptr;
    // The tops of a Split have the memory of its bottom only once it has run.
    const bool apart = !Same(split, blob, ramp) && (ramp->count() == 0 || ramp->data() != blob->data());
    const bool wired = Same(split, blob, bottoms_[i][0]) && apart && InPlace(i + 1, ramp) &&
                       layers_[i + 2]->layer_param().type() == "Eltwise" && Plain(i + 2) &&
                       bottoms_[i + 2].size() == 2 && to != nullptr && InPlace(i + 3, to) && to != ramp &&
                       !Same(split, blob, to) && !seen(blob) && !seen(ramp) &&
                       (split < 0 || tops_[split].size() == 2) &&
                       ((Same(split, blob, bottoms_[i + 2][0]) && bottoms_[i + 2][1] == ramp) ||
                        (Same(split, blob, bottoms_[i + 2][1]) && bottoms_[i + 2][0] == ramp));
    // Power adds no shift of 0, which would make 0 of -0.
    const bool computes = shift.power() == 1 && shift.scale() == 1 && shift.shift() != 0 && factor.power() == 1 &&
                          factor.shift() == 0 && factor.scale() != 0 &&
                          product.operation() == EltwiseParameter_EltwiseOp_PROD &&
                          KeepsWithin(*layers_[i + 1], &after.bounds);
    if (!wired || !computes) { return; }
    after.shift = shift.shift();
    after.factor = factor.scale();
    *found = {after, i + 4, ramp, to};
  }

  /// A convolution, the layer of number `begin`, and its activation.
  struct ConvStep {
    int begin = 0;
    ConvolutionLayer<Dtype>* layer = nullptr;
    BlockConv<Dtype> conv;
    Activation activation;
  };

  /// The convolution that layer i is, which has its shapes from now on; false if it is none that is known.
  bool IsConvolution(const int i, ConvStep* step) const {
    if (i >= layers_.size() || tops_[i].size() != 1 || bottoms_[i].size() != 1 || !Plain(i)) { return false; }
    step->begin = i;
    step->layer = dynamic_cast<ConvolutionLayer<Dtype>*>(layers_[i].get());
    if (step->layer == nullptr) { return false; }
    step->layer->Reshape(bottoms_[i], tops_[i]);
    const Blob<Dtype>& input = *bottoms_[i][0];
    return input.num_axes() == 4 && input.count() > 0 && step->layer->AsBlockConv(&step->conv);
  }

  /// Packs the weights of a convolution and finds the activation after it, whose layers have their shapes from now on.
  void Complete(ConvStep* step) const {
    step->conv.packed = step->layer->Packed();
    step->activation = ActivationAt(step->begin + 1, tops_[step->begin][0]);
    for (int l = step->begin + 1; l < step->activation.end; ++l) {
      if (layers_[l]->layer_param().type() == "Split") {
        layers_[l]->Forward(bottoms_[l], tops_[l]);  // its tops share the memory of its bottom
      } else {
        layers_[l]->Reshape(bottoms_[l], tops_[l]);
      }
    }
  }

  /// Whether what the step makes need not be stored, for the convolution that follows: `other`, depthwise or not.
  bool Passes(const ConvStep& step, const bool depthwise, ConvStep* other) const {
    const Activation& made = step.activation;
    const bool seen = tops_[step.begin][0]->data()->exposed() || made.to->data()->exposed() ||
                      (made.ramp != nullptr && made.ramp->data()->exposed());
    return step.conv.depthwise != depthwise && !seen && IsConvolution(made.end, other) &&
           other->conv.depthwise == depthwise && bottoms_[made.end][0] == made.to;
  }

  /// Runs a convolution with its activation, or a chain of them (util/conv_chain.hpp); the number of the layer after
  /// them, or i.
  int Convolution(const int i) {
    vector<ConvStep> steps(1);
    if (!IsConvolution(i, &steps[0])) { return i; }
    const Blob<Dtype>& input = *bottoms_[i][0];
    const bool blocks = HasBlocks(input);
    if (!blocks && steps[0].conv.outputs < SimdLanes<Dtype>() / 2) { return i; }  // most lanes would be empty
    Complete(&steps[0]);
    ConvStep next;
    for (const bool depthwise : {true, false}) {
      if (Passes(steps.back(), depthwise, &next)) {
        Complete(&next);
        steps.push_back(next);
      }
    }
    const Sum sum = SumAfter(i, steps.back());
    if (!blocks) { RunNoted(); }  // which may write it
    ConvImages<Dtype> images;
    images.num = input.shape(0);
    if (steps[0].conv.depthwise || blocks || steps[0].conv.channels >= 4 * SimdLanes<Dtype>()) {
      images.blocks = BlocksOf(input);
    } else if (steps.size() > 1 || Between(steps[0]) || sum.other) {
      images.padded = Padded(steps[0].conv, input);
    } else {
      images.values = input.cpu_data();  // all is stored, so nothing is computed again
    }
    shared_ptr<ConvChain<Dtype>> chain;
    for (const ConvStep& step : steps) {
      chain = chain ? boost::make_shared<ConvChain<Dtype>>(*chain) : boost::make_shared<ConvChain<Dtype>>();
      chain->push_back({step.conv, step.activation.after});
      DoNotKeep(step, images, chain, chain->size() < steps.size() || sum.other);
    }
    // The result of the last step, or its sum with the other map, is stored.
    const shared_ptr<const ChannelBlocks<Dtype>> other = sum.other;
    const shared_ptr<ChannelBlocks<Dtype>> to = NewBlocks(sum.to);
    Note(images.num, [=](const int n) {
      RunChain(*chain, images.Image((*chain)[0].conv, n), other ? other->Image(n).values : nullptr, to->Image(n));
    });
    return sum.end;
  }

  /// The sum of a convolution's result and another map, as at the end of a residual block.
  struct Sum {
    shared_ptr<const ChannelBlocks<Dtype>> other;  // null: there is no sum
    Blob<Dtype>* to;
    int end;  // the number of the layer after it
  };

  /// The layer after the step, the last one of those from number `begin` on, if it adds a map that is in blocks to what
  /// the step makes, of which nobody else has a pointer. That layer has its shapes from now on.
  Sum SumAfter(const int begin, const ConvStep& step) const {
    const int i = step.activation.end;
    Blob<Dtype>* made = step.activation.to;
    const Sum none = {nullptr, made, i};
    const AfterConv<Dtype>& after = step.activation.after;
    if (i >= layers_.size() || !Plain(i) || !IsSum(*layers_[i]) || bottoms_[i].size() != 2 || step.conv.depthwise ||
        after.swish || after.bounds.any() || made->data()->exposed()) {
      return none;
    }
    const bool second = bottoms_[i][1] == made;
    const Blob<Dtype>& other = *bottoms_[i][second ? 0 : 1];
    if (bottoms_[i][second ? 1 : 0] != made || other.shape() != made->shape() || !HasBlocks(other)) { return none; }
    // Blobs of a net may be made to share memory: the map would be another one by the time of the sum.
    for (int l = begin; l < i; ++l) {
      for (const Blob<Dtype>* top : tops_[l]) {
        if (top->data() == other.data()) { return none; }
      }
    }
    layers_[i]->Reshape(bottoms_[i], tops_[i]);
    return {BlocksOf(other), tops_[i][0], i + 1};
  }

  /// A copy of the input with its padding: who has written it may write another before somebody asks what was made of
  /// this one.
  shared_ptr<vector<Dtype>> Padded(const BlockConv<Dtype>& conv, const Blob<Dtype>& input) {
    const size_t size = PaddedSize(conv), num = input.shape(0);
    shared_ptr<vector<Dtype>> padded;
    padded.swap(spare_);
    if (!padded.unique() || padded->size() != num * size) { padded = boost::make_shared<vector<Dtype>>(num * size); }
    for (int n = 0; n < num; ++n) { PadPlanes(conv, input.cpu_data() + n * input.count(1), padded->data() + n * size); }
    return padded;
  }

  /// Whether a blob has the sums of the convolution, and another one the result.
  bool Between(const ConvStep& step) const { return step.activation.to != tops_[step.begin][0]; }

  /// What is between the step's layers is not stored, but computed if somebody asks; with_result: so is its result.
  void DoNotKeep(const ConvStep& step, const ConvImages<Dtype>& images, const shared_ptr<const ConvChain<Dtype>>& chain,
                 const bool with_result) {
    const auto defer = [&](const Blob<Dtype>* blob, const ConvValues values) {
      blob->data()->Defer(boost::make_shared<NotKept<Dtype>>(chain, images, values));
    };
    const Activation& made = step.activation;
    if (Between(step)) { defer(tops_[step.begin][0], ConvValues::SUMS); }
    if (made.ramp != nullptr) { defer(made.ramp, ConvValues::RAMP); }
    if (with_result) { defer(made.to, ConvValues::RESULT); }
  }

  /// Runs a layer that knows blocks of channels; the number of the layer after it, or i.
  int Single(const int i) {
    if (bottoms_[i].empty() || tops_[i].size() != 1 || !Plain(i) || !KnowsBlocks(*layers_[i])) { return i; }
    if (!HasBlocks(*bottoms_[i][0])) { return i; }
    layers_[i]->Reshape(bottoms_[i], tops_[i]);
    const ImagePass pass = PassOfBlocks(layers_[i].get(), bottoms_[i], tops_[i][0]);
    if (!pass) { return i; }
    Note(bottoms_[i][0]->shape(0), pass);
    return i + 1;
  }

  /// Whether all that the layers [begin, end) read and do not make is in blocks.
  bool HaveBlocks(const int begin, const int end) const {
    std::set<const Blob<Dtype>*> made;
    for (int l = begin; l < end; ++l) {
      for (const Blob<Dtype>* bottom : bottoms_[l]) {
        if (made.count(bottom) == 0 && !HasBlocks(*bottom)) { return false; }
      }
      made.insert(tops_[l].begin(), tops_[l].end());
    }
    return true;
  }

  /// Runs layers that can be computed in pieces; the number of the layer after them, or i.
  int Chain(const int i) {
    const auto may_be = [this](const int l) {
      const std::string& type = layers_[l]->layer_param().type();
      return type == "Power" || type == "ReLU6" || type == "ReLU" || type == "Clip" || type == "Eltwise" ||
             type == "HardSwish" || type == "HardSigmoid";
    };
    int end = i, computed = 0;
    for (; end < layers_.size(); ++end) {
      const bool split = layers_[end]->layer_param().type() == "Split";
      if ((!split && !may_be(end)) || !Plain(end)) { break; }
      computed += !split;
    }
    if (computed == 0) { return i; }
    const Blob<Dtype>& first = *bottoms_[i][0];
    const bool blocks = HasBlocks(first);
    if (computed < 2 && !blocks) { return i; }
    // What is noted may write what is read here in a blob's order. Now, as blocks may get other values below.
    if (!blocks || !HaveBlocks(i, end)) { RunNoted(); }
    vector<Piece> pieces;
    vector<shared_ptr<const ChannelBlocks<Dtype>>> held;  // what the pieces read and write
    int l = i;
    for (; l < end; ++l) {
      layers_[l]->Reshape(bottoms_[l], tops_[l]);
      bool fits = true;
      for (const Blob<Dtype>* bottom : bottoms_[l]) { fits = fits && bottom->shape() == first.shape(); }
      if (!fits) { break; }
      if (layers_[l]->layer_param().type() == "Split") {
        layers_[l]->Forward(bottoms_[l], tops_[l]);  // its tops share the memory of its bottom
        continue;
      }
      // What it computes is asked first, with no values: the top must not be changed if it is not computed here.
      if (!PieceOf<Dtype>(*layers_[l], vector<const Dtype*>(bottoms_[l].size()), nullptr)) { break; }
      vector<const Dtype*> x;
      for (const Blob<Dtype>* bottom : bottoms_[l]) {
        if (blocks) {
          held.push_back(BlocksOf(*bottom));
          x.push_back(held.back()->Image(0).values);
        } else {
          x.push_back(bottom->cpu_data());
        }
      }
      Dtype* y;
      if (blocks) {
        const shared_ptr<ChannelBlocks<Dtype>> made = NewBlocks(tops_[l][0]);
        held.push_back(made);
        y = made->Image(0).values;
      } else {
        y = tops_[l][0]->mutable_cpu_data();
      }
      pieces.push_back(PieceOf<Dtype>(*layers_[l], x, y));
    }
    if (pieces.empty()) { return l; }
    if (!blocks) {
      RunPieces(pieces, 0, first.count());
      return l;
    }
    const size_t size = BlocksOf(first)->Image(0).size();
    Note(first.shape(0), [pieces, held, size](const int n) { RunPieces(pieces, n * size, size); });
    return l;
  }

  const vector<shared_ptr<Layer<Dtype>>>& layers_;
  const vector<vector<Blob<Dtype>*>>& bottoms_;
  const vector<vector<Blob<Dtype>*>>& tops_;
  int noted_num_ = 0;
  vector<ImagePass> noted_;
  vector<shared_ptr<SyncedMemory>> written_;  // tops of what is noted
  shared_ptr<vector<Dtype>> spare_;           // a padded input of the last pass
};

}  // namespace

template <typename Dtype>
Dtype ForwardWhole(const vector<shared_ptr<Layer<Dtype>>>& layers, const vector<vector<Blob<Dtype>*>>& bottoms,
                   const vector<vector<Blob<Dtype>*>>& tops) {
  return WholePass<Dtype>(layers, bottoms, tops).Run();
}

#define INSTANTIATE(Dtype)                                                        \
  template Dtype ForwardWhole<Dtype>(const vector<shared_ptr<Layer<Dtype>>>&,     \
                                     const vector<vector<Blob<Dtype>*>>& bottoms, \
                                     const vector<vector<Blob<Dtype>*>>& tops)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace caffe
