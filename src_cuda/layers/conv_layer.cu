#include <vector>

#include "caffe/layers/conv_layer.hpp"

namespace caffe {

template <typename Dtype>
void ConvolutionLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Dtype* weights = this->blobs_[0]->gpu_data();
  for (int i = 0; i < bottom.size(); ++i) {
    const Dtype* input = bottom[i]->gpu_data();
    Dtype* output = top[i]->mutable_gpu_data();
    for (int n = 0; n < this->num_; ++n) {
      this->forward_gpu_gemm(input, weights, output);
      if (this->bias_term_) { this->forward_gpu_bias(output, this->blobs_[1]->gpu_data()); }
      input += this->bottom_dim_;
      output += this->top_dim_;
    }
  }
}

template <typename Dtype>
void ConvolutionLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                           const vector<Blob<Dtype>*>& bottom) {
  const bool for_weights = this->param_propagate_down_[0];
  const bool for_bias = this->bias_term_ && this->param_propagate_down_[1];
  const Dtype* weights = this->blobs_[0]->gpu_data();
  for (int i = 0; i < top.size(); ++i) {
    const Dtype* top_diff = top[i]->gpu_diff();
    for (int n = 0; n < this->num_; ++n) {
      const Dtype* output = top_diff + n * this->top_dim_;
      if (for_bias) { this->backward_gpu_bias(this->blobs_[1]->mutable_gpu_diff(), output); }
      if (for_weights) {
        this->weight_gpu_gemm(bottom[i]->gpu_data() + n * this->bottom_dim_, output,
                              this->blobs_[0]->mutable_gpu_diff());
      }
      if (propagate_down[i]) {
        this->backward_gpu_gemm(output, weights, bottom[i]->mutable_gpu_diff() + n * this->bottom_dim_);
      }
    }
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(ConvolutionLayer);

}  // namespace caffe
