#ifndef CAFFE_CUDNN_CONV_LAYER_HPP_
#define CAFFE_CUDNN_CONV_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/conv_layer.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

#ifdef USE_CUDNN
/**
 * @brief Convolution by cuDNN 8 and 9 (engine CUDNN); parameters, shapes and
 *        formula are ConvolutionLayer's.
 *
 * All groups go in one call. On CPU, and where the spatial axes are not two,
 * it is ConvolutionLayer.
 *
 * Algorithms are the first in the order of cuDNN's heuristics
 * (cudnnGetConvolution*Algorithm_v7) that keep within the workspace bound, and
 * are chosen anew when the shape of bottom changes; those of backward at the
 * first backward. Floats are multiplied in full (no TF32). The environment
 * variables CAFFE_CUDNN_WORKSPACE_MB, CAFFE_CUDNN_TF32 and
 * CAFFE_CUDNN_DETERMINISTIC change that, see util/cudnn.hpp.
 *
 * cuDNN pads both ends of an axis alike. Where tf_pad asks for one place more
 * after than before, bottom is copied into a blob one place longer there, and
 * its gradient is cut back.
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
  /// Tells cuDNN the shapes; forgets the algorithms where they changed.
  void Describe();
  void ChooseForward();
  void ChooseBackward();
  /// Bottom as cuDNN gets it: with uneven padding a longer copy.
  const Dtype* Extended(const Dtype* bottom);
  /// Where cuDNN puts bottom's gradient, and the way from there to bottom.
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
