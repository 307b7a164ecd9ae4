#ifndef CAFFE_INPUT_KEEPING_LAYER_HPP_
#define CAFFE_INPUT_KEEPING_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/neuron_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/math_functions.hpp"

namespace caffe {

/**
 * @brief A pointwise layer whose gradient needs x and cannot be computed from y.
 *
 * In place, forward overwrites x, so in phase TRAIN a copy is kept (which
 * takes the memory that a top of its own would). In phase TEST nothing is kept, and
 * a backward pass stops with a CHECK that names the layer.
 */
template <typename Dtype>
class InputKeepingLayer : public NeuronLayer<Dtype> {
 public:
  explicit InputKeepingLayer(const LayerParameter& param) : NeuronLayer<Dtype>(param) {}
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    NeuronLayer<Dtype>::Reshape(bottom, top);
    if (Keeps(bottom, top)) { kept_.ReshapeLike(*bottom[0]); }
  }

 protected:
  /// Call before forward writes y.
  void KeepInput(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    if (!Keeps(bottom, top)) { return; }
    const bool gpu = Caffe::mode() == Caffe::GPU;
    caffe_copy(kept_.count(), gpu ? bottom[0]->gpu_data() : bottom[0]->cpu_data(),
               gpu ? kept_.mutable_gpu_data() : kept_.mutable_cpu_data());
  }
  /// The blob that holds x for backward.
  const Blob<Dtype>& Input(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) const {
    if (bottom[0] != top[0]) { return *bottom[0]; }
    CHECK(Keeps(bottom, top)) << this->type() << " layer " << this->layer_param_.name()
                              << ": in place its input is kept in phase TRAIN only; for a backward "
                              << "pass in phase TEST give it a top of its own.";
    return kept_;
  }

 private:
  bool Keeps(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) const {
    return bottom[0] == top[0] && this->phase_ == TRAIN;
  }

  Blob<Dtype> kept_;
};

}  // namespace caffe

#endif  // CAFFE_INPUT_KEEPING_LAYER_HPP_
