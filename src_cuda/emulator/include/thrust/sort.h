// What the fork's bbox_util.cu uses of Thrust, on the host's memory.
#ifndef SSDLITE_CAFFE_EMULATOR_THRUST_SORT_H_
#define SSDLITE_CAFFE_EMULATOR_THRUST_SORT_H_

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace thrust {

template <typename Key, typename Value, typename Before>
void sort_by_key(Key* first, Key* last, Value* values, const Before before) {
  std::vector<std::pair<Key, Value>> pairs;
  for (ptrdiff_t i = 0; i < last - first; ++i) { pairs.emplace_back(first[i], values[i]); }
  std::stable_sort(pairs.begin(), pairs.end(), [&](const auto& a, const auto& b) { return before(a.first, b.first); });
  for (size_t i = 0; i < pairs.size(); ++i) {
    first[i] = pairs[i].first;
    values[i] = pairs[i].second;
  }
}

}  // namespace thrust

#endif  // SSDLITE_CAFFE_EMULATOR_THRUST_SORT_H_
