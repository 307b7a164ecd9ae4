#ifndef CAFFE_GLOBAL_POOLING_LAYER_HPP_
#define CAFFE_GLOBAL_POOLING_LAYER_HPP_

#include <vector>

#include "caffe/layers/pooling_layer.hpp"

namespace caffe {

/**
 * @brief Pooling with global_pooling and pool AVE: the mean of each plane.
 *
 *     top(n, c) = sum over y, x of bottom(n, c, y, x) / (H W)
 *
 * The class, its gradient and its GPU code are PoolingLayer's. On the CPU the planes are divided among the threads, and
 * a plane is summed in whole vectors, then in double: PoolingLayer adds one value after another.
 */
template <typename Dtype>
class GlobalPoolingLayer : public PoolingLayer<Dtype> {
 public:
  explicit GlobalPoolingLayer(const LayerParameter& param) : PoolingLayer<Dtype>(param) {}

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
};

}  // namespace caffe

#endif  // CAFFE_GLOBAL_POOLING_LAYER_HPP_
