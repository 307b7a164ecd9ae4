#include "caffe/util/pointwise_pieces.hpp"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "caffe/layers/hardsigmoid_layer.hpp"
#include "caffe/layers/hardswish_layer.hpp"
#include "caffe/util/parallel.hpp"
#include "caffe/util/pointwise.hpp"

namespace caffe {

namespace {

/// Values that go through all pieces before the next ones: a few arrays of them stay in the first-level cache.
constexpr int kStretch = 2048;

template <typename Dtype, typename Op>
Piece OneToOne(const Dtype* x, Dtype* y, const Op op) {
  return [=](const size_t begin, const size_t end) {
    CAFFE_INDEPENDENT_PASSES
    for (size_t i = begin; i < end; ++i) { y[i] = op(x[i]); }
  };
}

/// y = scale x, or x + shift. Of both, Power makes two passes, and rounds after each.
template <typename Dtype>
Piece PowerPiece(const PowerParameter& param, const Dtype* x, Dtype* y) {
  const Dtype scale = param.scale(), shift = param.shift();
  if (param.power() != 1 || scale == 0 || (scale != 1 && shift != 0)) { return nullptr; }
  if (shift == 0) {
    return OneToOne(x, y, [=](const Dtype value) { return scale * value; });
  }
  return OneToOne(x, y, [=](const Dtype value) { return value + shift; });
}

bool HasFactors(const EltwiseParameter& param) {
  return std::any_of(param.coeff().begin(), param.coeff().end(), [](const float factor) { return factor != 1; });
}

template <typename Dtype>
Piece EltwisePiece(const EltwiseParameter& param, const vector<const Dtype*>& x, Dtype* y) {
  const bool product = param.operation() == EltwiseParameter_EltwiseOp_PROD;
  const bool sum = param.operation() == EltwiseParameter_EltwiseOp_SUM;
  if (x.size() != 2 || HasFactors(param) || !(product || sum)) { return nullptr; }
  const Dtype* a = x[0];
  const Dtype* b = x[1];
  return [=](const size_t begin, const size_t end) {
    if (product) {
      CAFFE_INDEPENDENT_PASSES
      for (size_t i = begin; i < end; ++i) { y[i] = a[i] * b[i]; }
    } else {
      CAFFE_INDEPENDENT_PASSES
      for (size_t i = begin; i < end; ++i) { y[i] = a[i] + b[i]; }
    }
  };
}

}  // namespace

template <typename Dtype>
bool KeepsWithin(const Layer<Dtype>& layer, Bounds<Dtype>* bounds) {
  const LayerParameter& param = layer.layer_param();
  const std::string& type = param.type();
  if (type == "ReLU6" && param.relu6_param().negative_slope() == 0) {
    *bounds = {Dtype(0), Dtype(param.relu6_param().threshold())};
    return true;
  }
  if (type == "ReLU" && param.relu_param().negative_slope() == 0) {
    *bounds = {Dtype(0), std::numeric_limits<Dtype>::infinity()};
    return true;
  }
  if (type == "Clip") {
    *bounds = {Dtype(param.clip_param().min()), Dtype(param.clip_param().max())};
    return true;
  }
  return false;
}

template <typename Dtype>
bool IsSum(const Layer<Dtype>& layer) {
  const EltwiseParameter& param = layer.layer_param().eltwise_param();
  return layer.layer_param().type() == "Eltwise" && param.operation() == EltwiseParameter_EltwiseOp_SUM &&
         !HasFactors(param);
}

template <typename Dtype>
Piece PieceOf(const Layer<Dtype>& layer, const vector<const Dtype*>& x, Dtype* y) {
  const LayerParameter& param = layer.layer_param();
  const std::string& type = param.type();
  Bounds<Dtype> bounds;
  if (KeepsWithin(layer, &bounds)) {
    return OneToOne(x[0], y, [=](const Dtype value) { return AtMost(AtLeast(value, bounds.low), bounds.high); });
  }
  if (type == "Power") { return PowerPiece(param.power_param(), x[0], y); }
  if (type == "Eltwise") { return EltwisePiece(param.eltwise_param(), x, y); }
  if (type == "HardSwish") {
    return OneToOne(x[0], y, [](const Dtype value) { return HardSwishOp<Dtype>().Value(value); });
  }
  if (type == "HardSigmoid") {
    const HardSigmoidOp<Dtype> op = {Dtype(param.hardsigmoid_param().alpha()), Dtype(param.hardsigmoid_param().beta())};
    return OneToOne(x[0], y, [=](const Dtype value) { return op.Value(value); });
  }
  return nullptr;
}

void RunPieces(const vector<Piece>& pieces, const size_t begin, const int count) {
  ParallelFor(count, ParallelGrain(count, 4 * kStretch), [&](const int first, const int last) {
    for (int from = first; from < last; from += kStretch) {
      const int to = std::min(from + kStretch, last);
      for (const Piece& piece : pieces) { piece(begin + from, begin + to); }
    }
  });
}

#define INSTANTIATE_PIECES(Dtype)                                        \
  template bool KeepsWithin<Dtype>(const Layer<Dtype>&, Bounds<Dtype>*); \
  template bool IsSum<Dtype>(const Layer<Dtype>&);                       \
  template Piece PieceOf<Dtype>(const Layer<Dtype>&, const vector<const Dtype*>&, Dtype*)
INSTANTIATE_PIECES(float);
INSTANTIATE_PIECES(double);

}  // namespace caffe
