#include "caffe/layers/global_pooling_layer.hpp"

#include <vector>

#include "caffe/util/parallel.hpp"
#include "caffe/util/simd.hpp"

namespace caffe {

template <typename Dtype>
void GlobalPoolingLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Dtype* x = bottom[0]->cpu_data();
  Dtype* y = top[0]->mutable_cpu_data();
  const int planes = bottom[0]->count(0, 2), size = bottom[0]->count(2);
  ParallelFor(planes, ParallelGrain(planes, 1 + 30000 / size), [=](const int begin, const int end) {
    for (int p = begin; p < end; ++p) {
      y[p] = static_cast<Dtype>(SimdTotal(x + static_cast<size_t>(p) * size, size) / size);
    }
  });
}

INSTANTIATE_CLASS(GlobalPoolingLayer);

}  // namespace caffe
