#ifndef CAFFE_UTIL_POINTWISE_PIECES_HPP_
#define CAFFE_UTIL_POINTWISE_PIECES_HPP_

#include <cstddef>
#include <functional>
#include <vector>

#include "caffe/layer.hpp"
#include "caffe/util/bounds.hpp"

/**
 * Layers whose every output depends on the inputs of the same index, computed a piece at a time: several of them in a
 * row pass over memory once, and not once each. The values are those of the layers' own forward passes.
 */
namespace caffe {

/// Computes the outputs of a layer from index `begin` up to `end`.
typedef std::function<void(size_t begin, size_t end)> Piece;

/// The forward pass of the layer in pieces; null if it is not such a layer, or not with its settings. Power (of power
/// 1), ReLU, ReLU6, Clip, HardSwish, HardSigmoid, and Eltwise that adds or multiplies two bottoms. x: the values of its
/// bottoms, in whatever order all of them and the top, y, have.
template <typename Dtype>
Piece PieceOf(const Layer<Dtype>& layer, const std::vector<const Dtype*>& x, Dtype* y);

/// Runs the pieces of `count` values from index `begin` on, each stretch of them through all pieces, on the layers'
/// threads.
void RunPieces(const std::vector<Piece>& pieces, size_t begin, int count);

/// Whether a layer keeps its values within bounds and does nothing else: ReLU and ReLU6 without a negative slope, Clip.
template <typename Dtype>
bool KeepsWithin(const Layer<Dtype>& layer, Bounds<Dtype>* bounds);

/// Whether a layer is an Eltwise that adds its bottoms as they are.
template <typename Dtype>
bool IsSum(const Layer<Dtype>& layer);

}  // namespace caffe

#endif  // CAFFE_UTIL_POINTWISE_PIECES_HPP_
