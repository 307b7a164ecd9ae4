#ifndef CAFFE_CUDNN_CONV_LAYER_HPP_
#define CAFFE_CUDNN_CONV_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/conv_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/pointwise_conv.hpp"

namespace caffe {

#ifdef USE_CUDNN
/**
 * @brief Convolution by cuDNN 8 and 9 (engine CUDNN); parameters, shapes and
 *        formula are ConvolutionLayer's.
 *
 * All groups go in one call. On CPU, and where the spatial axes are not two,
 * it is ConvolutionLayer.
 *
 * Of the algorithms that cuDNN's heuristics list (cudnnGetConvolution*Algorithm_v7), best first, the first one within
 * the workspace limit is taken. They are chosen again when the shape of bottom changes; those of the backward pass when
 * it runs first. Floats are multiplied in full precision (no TF32). The environment variables CAFFE_CUDNN_WORKSPACE_MB,
 * CAFFE_CUDNN_TF32 and CAFFE_CUDNN_DETERMINISTIC change that, see util/cudnn.hpp.
 *
 * 1x1 convolutions go to cuBLAS, see util/pointwise_conv.hpp.
 *
 * cuDNN pads both ends of an axis equally. Where tf_pad pads one more after than before, bottom is copied into a blob
 * that is longer by one there, and that part of its gradient is cut off again.
 */
template <typename Dtype>
class CuDNNConvolutionLayer : public ConvolutionLayer<Dtype> {
 public:
  explicit CuDNNConvolutionLayer(const LayerParameter& param)
      : ConvolutionLayer<Dtype>(param), forward_chosen_(false), backward_chosen_(false) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);

 protected:
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);

 private:
  template <typename Algorithm>
  struct Choice {
    Algorithm algorithm;
    size_t workspace;
  };

  bool by_cudnn() const { return this->num_spatial_axes_ == 2 && !this->force_nd_im2col_; }
  /// Whether cuBLAS computes it, but for the gradient of the weights where that is cuDNN's as well.
  bool pointwise() const { return this->is_1x1_ && this->group_ == 1 && this->num_ > 0; }
  PointwiseShape pointwise_shape() const;
  void PointwiseBackward(const Dtype* top_diff, const Dtype* bottom, Dtype* bottom_diff);
  void WeightsByCuDNN(const Dtype* top_diff, const Dtype* bottom);
  /// Tells cuDNN the shapes; forgets the algorithms where they changed.
  void Describe();
  void ChooseForward();
  void ChooseBackward();
  /// Bottom as cuDNN reads it: a longer copy where the padding is uneven.
  const Dtype* Extended(const Dtype* bottom);
  /// Where cuDNN writes the gradient of bottom; CutBack copies it from there to bottom.
  Dtype* ExtendedDiff(Dtype* bottom_diff);
  void CutBack(Dtype* bottom_diff);

  cudnn::TensorDescriptor in_, out_, bias_;
  cudnn::FilterDescriptor filter_;
  cudnn::ConvolutionDescriptor conv_;
  Choice<cudnnConvolutionFwdAlgo_t> forward_;
  Choice<cudnnConvolutionBwdDataAlgo_t> backward_data_;
  Choice<cudnnConvolutionBwdFilterAlgo_t> backward_filter_;
  vector<int> described_;  // shape of bottom
  bool forward_chosen_, backward_chosen_;
  Blob<Dtype> extended_;
};
#endif  // USE_CUDNN

}  // namespace caffe

#endif  // CAFFE_CUDNN_CONV_LAYER_HPP_
