#ifndef CAFFE_HARDSIGMOID_LAYER_HPP_
#define CAFFE_HARDSIGMOID_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/neuron_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/pointwise.hpp"

namespace caffe {

/// The formula of HardSigmoidLayer, see there.
template <typename Dtype>
struct HardSigmoidOp {
  Dtype alpha, beta;

  CAFFE_HOST_DEVICE Dtype Value(const Dtype x) const { return AtMost(AtLeast(alpha * x + beta, Dtype(0)), Dtype(1)); }
  CAFFE_HOST_DEVICE Dtype Slope(const Dtype x) const {
    const Dtype line = alpha * x + beta;
    return line > 0 && line < 1 ? alpha : Dtype(0);
  }
};

/// The same slope, computed from y. Backward needs no Value().
template <typename Dtype>
struct HardSigmoidFromTopOp {
  Dtype alpha;

  CAFFE_HOST_DEVICE Dtype Slope(const Dtype y) const { return y > 0 && y < 1 ? alpha : Dtype(0); }
};

/**
 * @brief A sigmoid of three straight lines.
 *
 *     y = min(max(alpha x + beta, 0), 1)
 *     dy/dx = alpha where 0 < alpha x + beta < 1, else 0
 *
 * One bottom of any shape, one top of the same shape. hardsigmoid_param:
 * alpha (default 0.2) and beta (default 0.5); the gate of MobileNet V3 is
 * alpha 1/6, beta 1/2. In place works: y shows on which line x is.
 *
 * Source: the formula of Keras' hard_sigmoid and ONNX's HardSigmoid.
 */
template <typename Dtype>
class HardSigmoidLayer : public NeuronLayer<Dtype> {
 public:
  explicit HardSigmoidLayer(const LayerParameter& param) : NeuronLayer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "HardSigmoid"; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);

  HardSigmoidOp<Dtype> op_;
};

}  // namespace caffe

#endif  // CAFFE_HARDSIGMOID_LAYER_HPP_
