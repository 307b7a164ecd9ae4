#ifndef CAFFE_UTIL_KEPT_ROOM_HPP_
#define CAFFE_UTIL_KEPT_ROOM_HPP_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace caffe {

/// Memory that is kept from call to call, and grows when it is too small.
template <typename T>
class KeptRoom {
 public:
  /// `count` values, aligned to a cache line. They are not those of the call before where the memory grows.
  T* For(const size_t count) {
    constexpr size_t line = 64 / sizeof(T);
    if (values_.size() < count + line) { values_.resize(count + line); }
    return values_.data() + Skipped();
  }

  /// What For gave last.
  const T* Kept() const { return values_.data() + Skipped(); }

 private:
  /// Values before the first one on a new line.
  size_t Skipped() const {
    const uintptr_t address = reinterpret_cast<uintptr_t>(values_.data());
    return ((address + 63) / 64 * 64 - address) / sizeof(T);
  }

  std::vector<T> values_;
};

}  // namespace caffe

#endif  // CAFFE_UTIL_KEPT_ROOM_HPP_
