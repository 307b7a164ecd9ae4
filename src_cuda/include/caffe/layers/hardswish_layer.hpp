#ifndef CAFFE_HARDSWISH_LAYER_HPP_
#define CAFFE_HARDSWISH_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/input_keeping_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/pointwise.hpp"

namespace caffe {

/// The formula of HardSwishLayer, see there.
template <typename Dtype>
struct HardSwishOp {
  CAFFE_HOST_DEVICE Dtype Value(const Dtype x) const {
    const Dtype relu6 = AtMost(AtLeast(x + 3, Dtype(0)), Dtype(6));
    return x * relu6 * Dtype(1. / 6.);
  }
  CAFFE_HOST_DEVICE Dtype Slope(const Dtype x) const {
    const Dtype middle = (x + x + 3) * Dtype(1. / 6.);
    return x >= 3 ? Dtype(1) : (x <= -3 ? Dtype(0) : middle);
  }
};

/**
 * @brief The activation of MobileNet V3.
 *
 *     y = x min(max(x + 3, 0), 6) / 6
 *     dy/dx = 0 where x <= -3, (2 x + 3) / 6 between, 1 where x >= 3
 *
 * One bottom of any shape, one top of the same shape; no parameters. x cannot be
 * computed from y (which falls and then rises), so in place a copy of x is kept,
 * see InputKeepingLayer.
 *
 * Source: Howard et al., Searching for MobileNetV3 (2019), section 5.2;
 * multiplied in the order of TensorFlow's slim, x * relu6(x + 3) * (1 / 6),
 * so that rounding agrees.
 */
template <typename Dtype>
class HardSwishLayer : public InputKeepingLayer<Dtype> {
 public:
  explicit HardSwishLayer(const LayerParameter& param) : InputKeepingLayer<Dtype>(param) {}

  virtual inline const char* type() const { return "HardSwish"; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);
};

}  // namespace caffe

#endif  // CAFFE_HARDSWISH_LAYER_HPP_
