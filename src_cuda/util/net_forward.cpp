// Net::ForwardFromTo (compat/net_forward.hpp). A range of layers is run one by one, as in the fork. A whole forward
// pass on the CPU in phase TEST, which no backward pass follows, takes layers together that follow each other, so that
// their values are not written to memory and read again:
//
// - a convolution, and a ReLU6, ReLU or Clip in place on its top: the bounds are applied to the sums in registers;
// - three convolutions, the second one depthwise, where the map between the first two is large: see conv_rows.hpp;
// - layers that compute each output from the inputs of the same index, as the four of a hard swish: each stretch of
//   values goes through all of them.
//
// Every blob gets the values that the layers one by one would give it.
#include <string>
#include <vector>

#include "caffe/layers/conv_layer.hpp"
#include "caffe/net.hpp"
#include "caffe/util/conv_rows.hpp"
#include "caffe/util/pointwise_pieces.hpp"

namespace caffe {

namespace {

template <typename Dtype>
struct WholePass {
  const vector<shared_ptr<Layer<Dtype>>>& layers;
  const vector<vector<Blob<Dtype>*>>& bottoms;
  const vector<vector<Blob<Dtype>*>>& tops;

  Dtype Run() const {
    Dtype loss = 0;
    const int count = layers.size();
    for (int i = 0; i < count;) {
      int end = Convolutions(i);
      if (end == i) { end = Chain(i); }
      if (end == i) {
        loss += layers[i]->Forward(bottoms[i], tops[i]);
        ++end;
      }
      i = end;
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

  bool InPlace(const int i, const Blob<Dtype>* blob) const {
    return bottoms[i].size() == 1 && tops[i].size() == 1 && bottoms[i][0] == blob && tops[i][0] == blob;
  }

  /// A convolution, and the bounds of the activation that follows it in place.
  struct Bounded {
    ConvolutionLayer<Dtype>* layer;  // null: no such convolution
    int number, end;                 // the numbers of the layer, and of the layer after the activation
    Bounds<Dtype> bounds;
  };

  Bounded BoundedAt(const int i) const {
    Bounded found = {nullptr, i, i + 1, Bounds<Dtype>()};
    if (i >= layers.size() || tops[i].size() != 1 || bottoms[i].size() != 1 || !Plain(i)) { return found; }
    found.layer = dynamic_cast<ConvolutionLayer<Dtype>*>(layers[i].get());
    const int next = i + 1;
    if (found.layer != nullptr && next < layers.size() && InPlace(next, tops[i][0]) && Plain(next) &&
        KeepsWithin(*layers[next], &found.bounds)) {
      ++found.end;
    }
    return found;
  }

  /// Runs a convolution with its activation, or three of them; the number of the layer after them, or i.
  int Convolutions(const int i) const {
    const Bounded first = BoundedAt(i);
    if (first.layer == nullptr) { return i; }
    first.layer->Reshape(bottoms[i], tops[i]);
    const Bounded second = BoundedAt(first.end);
    if (second.layer != nullptr && Follows(second, first)) {
      const Bounded third = BoundedAt(second.end);
      if (third.layer != nullptr && Follows(third, second) && InRows(first, second, third)) { return third.end; }
    }
    first.layer->ForwardBounded(bottoms[i], tops[i], first.bounds);
    return first.end;
  }

  bool Follows(const Bounded& next, const Bounded& before) const {
    return bottoms[next.number][0] == tops[before.number][0];
  }

  bool InRows(const Bounded& first, const Bounded& second, const Bounded& third) const {
    const auto of_rows = [this](const Bounded& bounded) {
      bounded.layer->Reshape(bottoms[bounded.number], tops[bounded.number]);
      ConvOfRows<Dtype> rows = bounded.layer->OfRows();
      rows.bounds = bounded.bounds;
      return rows;
    };
    const ConvOfRows<Dtype> a = of_rows(first), b = of_rows(second), c = of_rows(third);
    const Blob<Dtype>& input = *bottoms[first.number][0];
    if (input.num_axes() != 4 || !RowsWin(a, b, c)) { return false; }
    Blob<Dtype>* outputs[] = {tops[first.number][0], tops[second.number][0], tops[third.number][0]};
    const Dtype* from = input.cpu_data();
    Dtype* to[] = {outputs[0]->mutable_cpu_data(), outputs[1]->mutable_cpu_data(), outputs[2]->mutable_cpu_data()};
    for (int n = 0; n < input.shape(0); ++n) {
      ForwardInRows(a, b, c, from + n * input.count(1), to[0] + n * outputs[0]->count(1),
                    to[1] + n * outputs[1]->count(1), to[2] + n * outputs[2]->count(1));
    }
    return true;
  }

  /// Runs two or more layers that can be computed in pieces; the number of the layer after them, or i.
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
    if (computed < 2) { return i; }
    vector<Piece> pieces;
    int l = i;
    for (; l < end; ++l) {
      layers[l]->Reshape(bottoms[l], tops[l]);
      if (bottoms[l][0]->count() != bottoms[i][0]->count()) { break; }
      if (layers[l]->layer_param().type() == "Split") {
        layers[l]->Forward(bottoms[l], tops[l]);  // its tops share the memory of its bottom
        continue;
      }
      const Piece piece = PieceOf(layers[l].get(), bottoms[l], tops[l]);
      if (!piece) { break; }
      pieces.push_back(piece);
    }
    if (!pieces.empty()) { RunPieces(pieces, bottoms[i][0]->count()); }
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
