#include "caffe/layers/depthwise_conv_layer.hpp"

#include <vector>

namespace caffe {

template <typename Dtype>
void DepthwiseConvolutionLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  ConvolutionParameter* param = this->layer_param_.mutable_convolution_param();
  const bool own_name = this->layer_param_.type() != "Convolution";
  const int channels = bottom[0]->shape(bottom[0]->CanonicalAxisIndex(param->axis()));
  if (own_name && !param->has_group()) { param->set_group(channels); }
  ConvolutionLayer<Dtype>::LayerSetUp(bottom, top);
  const bool one_kernel = this->group_ == this->channels_ && this->group_ == this->num_output_;
  CHECK(one_kernel || !own_name) << this->layer_param_.type() << " layer " << this->layer_param_.name()
                                 << ": group and num_output must both be the number of channels, " << this->channels_
                                 << "; they are " << this->group_ << " and " << this->num_output_ << ".";
  is_depthwise_ = one_kernel && this->num_spatial_axes_ == 2;
}

template <typename Dtype>
void DepthwiseConvolutionLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  ConvolutionLayer<Dtype>::Reshape(bottom, top);
  if (is_depthwise_) { shape_ = this->plane_; }
}

template <typename Dtype>
void DepthwiseConvolutionLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
                                                   const vector<Blob<Dtype>*>& top) {
  if (!is_depthwise_) {
    ConvolutionLayer<Dtype>::Forward_cpu(bottom, top);
    return;
  }
  const Dtype* bias = this->bias_term_ ? this->blobs_[1]->cpu_data() : nullptr;
  for (int i = 0; i < bottom.size(); ++i) {
    DepthwiseForward(shape_, this->num_, this->channels_, bottom[i]->cpu_data(), this->blobs_[0]->cpu_data(), bias,
                     top[i]->mutable_cpu_data());
  }
}

template <typename Dtype>
void DepthwiseConvolutionLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                                    const vector<Blob<Dtype>*>& bottom) {
  if (!is_depthwise_) {
    ConvolutionLayer<Dtype>::Backward_cpu(top, propagate_down, bottom);
    return;
  }
  const bool for_weights = this->param_propagate_down_[0];
  const bool for_bias = this->bias_term_ && this->param_propagate_down_[1];
  for (int i = 0; i < top.size(); ++i) {
    const Dtype* top_diff = top[i]->cpu_diff();
    if (for_weights || for_bias) {
      DepthwiseBackwardWeights(shape_, this->num_, this->channels_, bottom[i]->cpu_data(), top_diff,
                               for_weights ? this->blobs_[0]->mutable_cpu_diff() : nullptr,
                               for_bias ? this->blobs_[1]->mutable_cpu_diff() : nullptr);
    }
    if (propagate_down[i]) {
      DepthwiseBackwardData(shape_, this->num_, this->channels_, top_diff, this->blobs_[0]->cpu_data(),
                            bottom[i]->mutable_cpu_diff());
    }
  }
}

#ifdef CPU_ONLY
STUB_GPU(DepthwiseConvolutionLayer);
#endif

INSTANTIATE_CLASS(DepthwiseConvolutionLayer);
REGISTER_LAYER_CLASS(DepthwiseConvolution);

// The other name of the type in public nets.
template <typename Dtype>
shared_ptr<Layer<Dtype>> Creator_ConvolutionDepthwiseLayer(const LayerParameter& param) {
  return shared_ptr<Layer<Dtype>>(new DepthwiseConvolutionLayer<Dtype>(param));
}
REGISTER_LAYER_CREATOR(ConvolutionDepthwise, Creator_ConvolutionDepthwiseLayer);

}  // namespace caffe
