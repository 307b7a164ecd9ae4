#ifndef CAFFE_UTIL_PACKED_WEIGHTS_HPP_
#define CAFFE_UTIL_PACKED_WEIGHTS_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/util/kept_room.hpp"

/**
 * Weights of a convolution in the order in which block_conv.cpp and block_depthwise.cpp read them.
 */
namespace caffe {

/**
 * Of one group: a part has the weights of two blocks of outputs, for each input and tap. Depthwise: of one block, for
 * each tap. Before them is the bias of the part's outputs, 0 if there is none. Outputs beyond the last one have 0.
 */
template <typename T>
class PackedWeights {
 public:
  /// Blocks of outputs in a part of a convolution that is not depthwise.
  static constexpr int kWide = 2;

  /// weights: outputs x taps, with a tap for each input channel and place of the kernel. bias may be null.
  void Pack(const T* weights, const T* bias, int outputs, int taps, bool depthwise);

  const T* BiasOf(const int part) const { return values_.Kept() + part * size_; }
  const T* TapsOf(const int part) const { return BiasOf(part) + lanes_; }

 private:
  void PackPart(const T* weights, const T* bias, int outputs, int taps, int part, T* to) const;

  int lanes_ = 0;    // outputs in a part
  size_t size_ = 0;  // values in a part
  KeptRoom<T> values_;
};

/// Packed weights of a layer, which are packed again when the layer's may have changed.
template <typename T>
class PackedWeightsOfLayer {
 public:
  /// blobs: the weights and, if there is one, the bias. While somebody has what was given here, it stays as it is.
  shared_ptr<const PackedWeights<T>> Get(const std::vector<shared_ptr<Blob<T>>>& blobs, bool depthwise);

 private:
  bool Same(const std::vector<shared_ptr<Blob<T>>>& blobs) const;

  shared_ptr<PackedWeights<T>> packed_;
  std::vector<shared_ptr<SyncedMemory>> memories_;  // they were packed from
  std::vector<unsigned long long> writes_;          // and how often these had been written
};

}  // namespace caffe

#endif  // CAFFE_UTIL_PACKED_WEIGHTS_HPP_
