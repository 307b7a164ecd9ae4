#include "caffe/util/packed_weights.hpp"

#include <algorithm>

#include <boost/make_shared.hpp>

#include "caffe/util/parallel.hpp"
#include "caffe/util/simd.hpp"

namespace caffe {

namespace {

/// Values that a thread packs at a time, at least.
constexpr int kGrain = 1 << 14;

/// Rows of K values as K x lanes, the lanes beyond `rows` 0. A few k at a time, so that whole lines are written.
template <typename T>
void Transpose(const T* from, const int rows, const int K, const int lanes, T* to) {
  constexpr int kStep = 64 / sizeof(T);
  const int whole = rows / 4 * 4;
  for (int begin = 0; begin < K; begin += kStep) {
    const int end = std::min(K, begin + kStep);
    // What comes next, which so many rows at a time keep the processor from fetching ahead by itself.
    const T* ahead = from + (static_cast<size_t>(K) + begin) * lanes;
    for (int line = 0; line < lanes; ++line) { __builtin_prefetch(ahead + line * kStep); }
    for (int l = 0; l < whole; l += 4) {
      const T* row = from + static_cast<size_t>(l) * K;
      int k = begin;
      for (; k + 4 <= end; k += 4) { SimdTranspose(row + k, K, to + static_cast<size_t>(k) * lanes + l, lanes); }
      for (; k < end; ++k) {
        for (int i = 0; i < 4; ++i) {
          to[static_cast<size_t>(k) * lanes + l + i] = row[static_cast<size_t>(i) * K + k];
        }
      }
    }
    for (int l = whole; l < lanes; ++l) {
      for (int k = begin; k < end; ++k) {
        to[static_cast<size_t>(k) * lanes + l] = l < rows ? from[static_cast<size_t>(l) * K + k] : T(0);
      }
    }
  }
}

}  // namespace

template <typename T>
void PackedWeights<T>::Pack(const T* weights, const T* bias, const int outputs, const int taps, const bool depthwise) {
  constexpr int L = SimdLanes<T>();
  lanes_ = depthwise ? L : kWide * L;
  size_ = static_cast<size_t>(lanes_) * (taps + 1);
  const int parts = (outputs + lanes_ - 1) / lanes_;
  T* to = values_.For(parts * size_);
  ParallelFor(parts, static_cast<int>(1 + kGrain / size_), [=](const int begin, const int end) {
    for (int part = begin; part < end; ++part) { PackPart(weights, bias, outputs, taps, part, to + part * size_); }
  });
}

template <typename T>
void PackedWeights<T>::PackPart(const T* weights, const T* bias, const int outputs, const int taps, const int part,
                                T* to) const {
  const int first = part * lanes_, rows = std::min(lanes_, outputs - first);
  for (int l = 0; l < lanes_; ++l) { to[l] = bias == nullptr || l >= rows ? T(0) : bias[first + l]; }
  // A tile of one block reads the weights of one block.
  constexpr int L = SimdLanes<T>();
  const int lanes = rows <= L ? L : lanes_;
  Transpose(weights + static_cast<size_t>(first) * taps, rows, taps, lanes, to + lanes_);
}

template <typename T>
bool PackedWeightsOfLayer<T>::Same(const std::vector<shared_ptr<Blob<T>>>& blobs) const {
  if (!packed_ || blobs.size() != memories_.size()) { return false; }
  for (size_t i = 0; i < blobs.size(); ++i) {
    const shared_ptr<SyncedMemory>& memory = blobs[i]->data();
    if (memory != memories_[i] || memory->writes() != writes_[i] || memory->writable_elsewhere()) { return false; }
  }
  return true;
}

template <typename T>
shared_ptr<const PackedWeights<T>> PackedWeightsOfLayer<T>::Get(const std::vector<shared_ptr<Blob<T>>>& blobs,
                                                                const bool depthwise) {
  if (Same(blobs)) { return packed_; }
  if (!packed_ || !packed_.unique()) { packed_ = boost::make_shared<PackedWeights<T>>(); }
  const Blob<T>& weights = *blobs[0];
  packed_->Pack(weights.cpu_data(), blobs.size() > 1 ? blobs[1]->cpu_data() : nullptr, weights.shape(0),
                weights.count(1), depthwise);
  memories_.clear();
  writes_.clear();
  for (const shared_ptr<Blob<T>>& blob : blobs) {
    memories_.push_back(blob->data());
    writes_.push_back(blob->data()->writes());
  }
  return packed_;
}

template class PackedWeights<float>;
template class PackedWeights<double>;
template class PackedWeightsOfLayer<float>;
template class PackedWeightsOfLayer<double>;

}  // namespace caffe
