#ifndef CAFFE_RELU6_LAYER_HPP_
#define CAFFE_RELU6_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/neuron_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/pointwise.hpp"

namespace caffe {

/// The formula of ReLU6Layer, see there.
template <typename Dtype>
struct ReLU6Op {
  Dtype negative_slope, threshold;

  CAFFE_HOST_DEVICE Dtype Value(const Dtype x) const {
    const Dtype zero(0);
    return AtMost(AtLeast(x, zero) + negative_slope * AtMost(x, zero), threshold);
  }
  CAFFE_HOST_DEVICE Dtype Slope(const Dtype x) const {
    return x > 0 ? (x < threshold ? Dtype(1) : Dtype(0)) : negative_slope;
  }
};

/**
 * @brief ReLU with an upper bound, the activation of MobileNet V1 and V2.
 *
 *     y = min(max(x, 0) + negative_slope min(x, 0), threshold)
 *     dy/dx = 1 where 0 < x < threshold,
 *             negative_slope where x <= 0,
 *             0 where x >= threshold
 *
 * One bottom of any shape, one top of the same shape. relu6_param:
 *  - negative_slope (default 0), zero or more;
 *  - threshold (default 6), more than 0.
 *
 * In place works: the gradient depends only on the interval that x is in, and y is in the same one. (As with ReLU, a
 * later layer that changes y in place changes the gradient: give Dropout a blob of its own.)
 *
 * Source: TensorFlow's Relu6 and Relu6Grad, whose gradient is zero at both
 * bounds; Krizhevsky, Convolutional Deep Belief Networks on CIFAR-10 (2010).
 */
template <typename Dtype>
class ReLU6Layer : public NeuronLayer<Dtype> {
 public:
  explicit ReLU6Layer(const LayerParameter& param) : NeuronLayer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "ReLU6"; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);

  ReLU6Op<Dtype> op_;
};

}  // namespace caffe

#endif  // CAFFE_RELU6_LAYER_HPP_
