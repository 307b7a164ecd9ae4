#ifndef CAFFE_UTIL_ONES_HPP_
#define CAFFE_UTIL_ONES_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

/// Make `blob` a vector of `count` ones, with which GPU code sums by a matrix product. Reshape runs in every forward
/// pass: ones that are there stay, since writing them again on the CPU would copy them to the GPU again. A blob that
/// grows beyond its memory gets new memory, which is all zeros, so its last value tells.
template <typename Dtype>
void FillOnes(const int count, Blob<Dtype>* const blob) {
  blob->Reshape(std::vector<int>(1, count));
  if (count > 0 && blob->cpu_data()[count - 1] != Dtype(1)) { caffe_set(count, Dtype(1), blob->mutable_cpu_data()); }
}

}  // namespace caffe

#endif  // CAFFE_UTIL_ONES_HPP_
