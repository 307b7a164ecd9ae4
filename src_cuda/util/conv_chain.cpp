#include "caffe/util/conv_chain.hpp"

#include <vector>

#include "caffe/util/kept_room.hpp"
#include "caffe/util/pointwise.hpp"

namespace caffe {

namespace {

/// One convolution, or two of which the second is depthwise.
template <typename Dtype>
void RunPair(const ConvPart<Dtype>* parts, const int count, const ConvInput<Dtype>& input, const Dtype* add,
             const ImageBlocks<Dtype>& output) {
  if (count == 1) {
    ConvToBlocks(parts[0].conv, input, parts[0].after, add, output);
  } else {
    ConvAndDepthwise(parts[0].conv, input, parts[0].after, parts[1].conv, parts[1].after, output);
  }
}

template <typename Dtype>
void MakeRamp(const AfterConv<Dtype>& after, const size_t count, Dtype* x) {
  for (size_t i = 0; i < count; ++i) {
    x[i] = AtMost(AtLeast(x[i] + after.shift, after.bounds.low), after.bounds.high);
  }
}

}  // namespace

template <typename Dtype>
void RunChain(const ConvChain<Dtype>& chain, const ConvInput<Dtype>& input, const Dtype* add,
              const ImageBlocks<Dtype>& output) {
  const int count = chain.size();
  const ConvPart<Dtype>& last = chain.back();
  if (count == 1 || last.conv.depthwise) { return RunPair(chain.data(), count, input, add, output); }
  // The memory of a thread is used again by the next layers, of which it holds no more than the largest map.
  static thread_local KeptRoom<Dtype> room;
  ImageBlocks<Dtype> between = {nullptr, last.conv.channels, last.conv.shape.height, last.conv.shape.width};
  between.values = room.For(between.size());
  RunPair<Dtype>(chain.data(), count - 1, input, nullptr, between);
  ConvToBlocks(last.conv, {between.values, ConvInput<Dtype>::BLOCKS}, last.after, add, output);
}

template <typename Dtype>
NotKept<Dtype>::NotKept(const shared_ptr<const ConvChain<Dtype>>& chain, const ConvImages<Dtype>& images,
                        const ConvValues values)
    : chain_(chain), images_(images), values_(values) {
  if (images_.blocks) { images_.blocks->Hold(); }
}

template <typename Dtype>
NotKept<Dtype>::~NotKept() {
  if (images_.blocks) { images_.blocks->Release(); }
}

template <typename Dtype>
void NotKept<Dtype>::WriteTo(void* values) const {
  ConvChain<Dtype> chain = *chain_;
  const AfterConv<Dtype> after = chain.back().after;
  if (values_ != ConvValues::RESULT) { chain.back().after = AfterConv<Dtype>(); }
  const BlockConv<Dtype>& last = chain.back().conv;
  ChannelBlocks<Dtype> made(images_.num, last.outputs, last.shape.out_height, last.shape.out_width);
  for (int n = 0; n < images_.num; ++n) {
    RunChain<Dtype>(chain, images_.Image(chain[0].conv, n), nullptr, made.Image(n));
  }
  made.WriteTo(values);
  if (values_ == ConvValues::RAMP) {
    const size_t count = static_cast<size_t>(images_.num) * last.outputs * last.shape.out_height * last.shape.out_width;
    MakeRamp(after, count, static_cast<Dtype*>(values));
  }
}

#define INSTANTIATE_CHAIN(Dtype)                                                                \
  template void RunChain<Dtype>(const ConvChain<Dtype>&, const ConvInput<Dtype>&, const Dtype*, \
                                const ImageBlocks<Dtype>&);                                     \
  template class NotKept<Dtype>
INSTANTIATE_CHAIN(float);
INSTANTIATE_CHAIN(double);

}  // namespace caffe
