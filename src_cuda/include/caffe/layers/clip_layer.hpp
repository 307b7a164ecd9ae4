#ifndef CAFFE_CLIP_LAYER_HPP_
#define CAFFE_CLIP_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/input_keeping_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/pointwise.hpp"

namespace caffe {

/// The formula of ClipLayer, see there.
template <typename Dtype>
struct ClipOp {
  Dtype low, high;

  CAFFE_HOST_DEVICE Dtype Value(const Dtype x) const { return AtMost(AtLeast(x, low), high); }
  CAFFE_HOST_DEVICE Dtype Slope(const Dtype x) const { return x >= low && x <= high ? Dtype(1) : Dtype(0); }
};

/**
 * @brief Keeps values within two bounds.
 *
 *     y = min(max(x, min), max)
 *     dy/dx = 1 where min <= x <= max, else 0
 *
 * One bottom of any shape, one top of the same shape. clip_param: min and max,
 * both required, min <= max. At the bounds the gradient passes (with 0 and 6
 * that is where Clip and ReLU6 differ), so the gradient cannot be computed from
 * y: in place a copy of x is kept, see InputKeepingLayer.
 *
 * Source: the Clip layer of BVLC Caffe and TensorFlow's clip_by_value.
 */
template <typename Dtype>
class ClipLayer : public InputKeepingLayer<Dtype> {
 public:
  explicit ClipLayer(const LayerParameter& param) : InputKeepingLayer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "Clip"; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);

  ClipOp<Dtype> op_;
};

}  // namespace caffe

#endif  // CAFFE_CLIP_LAYER_HPP_
