#ifndef CAFFE_UTIL_CHANNEL_BLOCKS_HPP_
#define CAFFE_UTIL_CHANNEL_BLOCKS_HPP_

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <type_traits>

#include "caffe/blob.hpp"
#include "caffe/syncedmem.hpp"
#include "caffe/util/simd.hpp"

/**
 * Feature maps in blocks of channels, as a whole forward pass on the CPU keeps them.
 *
 * A blob is N x C x H x W. Here it is N x (C / kLanes, rounded up) x H W x kLanes: the kLanes channels of a block are
 * one vector at each position. A 1x1 convolution then multiplies vectors of weights by single values of its input,
 * which it reads in order; a depthwise one multiplies vectors. Neither copies its input first. onnxruntime (MLAS's
 * NCHWc) and oneDNN (nChw8c, nChw16c) do the same.
 */
namespace caffe {

/// One image of them.
template <typename Dtype>
struct ImageBlocks {
  static constexpr int kLanes = SimdLanes<typename std::remove_const<Dtype>::type>();

  Dtype* values;  // may be null
  int channels, height, width;

  int pixels() const { return height * width; }
  int blocks() const { return (channels + kLanes - 1) / kLanes; }
  /// Values from one block to the next.
  size_t block_size() const { return static_cast<size_t>(pixels()) * kLanes; }
  /// Values of all blocks. The last one has lanes beyond its channels, which hold anything.
  size_t size() const { return blocks() * block_size(); }
};

template <typename Dtype>
class ChannelBlocks : public DeferredValues {
 public:
  ChannelBlocks(int num, int channels, int height, int width);

  int num() const { return num_; }
  /// Somebody will read these values later, so that other ones must not be written over them.
  void Hold() const { ++holders_; }
  void Release() const { --holders_; }
  bool held() const { return holders_ > 0; }
  size_t count() const { return num_ * shape_.size(); }
  bool HasShape(const Blob<Dtype>& blob) const;

  ImageBlocks<Dtype> Image(const int n) {
    return {values_.get() + n * shape_.size(), shape_.channels, shape_.height, shape_.width};
  }
  ImageBlocks<const Dtype> Image(const int n) const {
    return {values_.get() + n * shape_.size(), shape_.channels, shape_.height, shape_.width};
  }

  /// Write them as a blob has them.
  void WriteTo(void* values) const override;
  /// Take them from a blob's order.
  void ReadFrom(const Dtype* values);

 private:
  struct Free {
    void operator()(Dtype* values) const { free(values); }
  };

  int num_;
  mutable int holders_ = 0;
  ImageBlocks<Dtype> shape_;  // without values
  std::unique_ptr<Dtype[], Free> values_;
};

/// The blob's values in blocks: those it holds, or a copy. Four axes.
template <typename Dtype>
shared_ptr<const ChannelBlocks<Dtype>> BlocksOf(const Blob<Dtype>& blob);

/// Whether the blob holds its values in blocks, so that nothing needs to be copied.
template <typename Dtype>
bool HasBlocks(const Blob<Dtype>& blob);

/// Blocks for the values of the blob, four axes, which the caller has to write: the blob has them from now on. They are
/// those that it had, unless somebody holds these.
template <typename Dtype>
shared_ptr<ChannelBlocks<Dtype>> NewBlocks(Blob<Dtype>* blob);

}  // namespace caffe

#endif  // CAFFE_UTIL_CHANNEL_BLOCKS_HPP_
