#include "caffe/layers/conv_layer.hpp"

#include <algorithm>
#include <climits>
#include <cstdint>
#include <vector>

namespace caffe {

template <typename Dtype>
void ConvolutionLayer<Dtype>::compute_output_shape() {
  const ConvolutionParameter& param = this->layer_param_.convolution_param();
  const bool same = param.has_tf_pad() && param.tf_pad() == ConvolutionParameter_TFPadding_SAME;
  const int* kernel = this->kernel_shape_.cpu_data();
  const int* stride = this->stride_.cpu_data();
  const int* dilation = this->dilation_.cpu_data();
  this->output_shape_.clear();
  for (int i = 0; i < this->num_spatial_axes_; ++i) {
    const int input = this->input_shape(i + 1);
    // 64 bits: values in a prototxt may give sizes that do not fit an int.
    const int64_t extent = int64_t(dilation[i]) * (kernel[i] - 1) + 1;
    if (same) {
      const int64_t positions = (int64_t(input) + stride[i] - 1) / stride[i];
      const int64_t total = std::max<int64_t>((positions - 1) * stride[i] + extent - input, 0);
      CHECK_LE(total, INT_MAX) << "Convolution layer " << this->layer_param_.name()
                               << ": its kernel is too large: it needs a padding of " << total
                               << ", more than an int holds.";
      this->pad_.mutable_cpu_data()[i] = total / 2;
      this->pad_after_[i] = total - total / 2;
    }
    const int64_t slack = int64_t(input) + this->pad_.cpu_data()[i] + this->pad_after_[i] - extent;
    CHECK_GE(slack, 0) << "Convolution layer " << this->layer_param_.name() << ": a kernel of extent " << extent
                       << " does not fit the padded input of " << slack + extent << " on spatial axis " << i << ".";
    CHECK_LT(slack + extent, INT_MAX) << "Convolution layer " << this->layer_param_.name()
                                      << ": its padding is too large: the padded input has a length of "
                                      << slack + extent << ", more than an int holds.";
    this->output_shape_.push_back(slack / stride[i] + 1);
  }
}

template <typename Dtype>
void ConvolutionLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Dtype* weights = this->blobs_[0]->cpu_data();
  for (int i = 0; i < bottom.size(); ++i) {
    const Dtype* input = bottom[i]->cpu_data();
    Dtype* output = top[i]->mutable_cpu_data();
    for (int n = 0; n < this->num_; ++n) {
      if (this->bias_term_) {
        this->ForwardCpuWithBias(input, weights, this->blobs_[1]->cpu_data(), output);
      } else {
        this->forward_cpu_gemm(input, weights, output);
      }
      input += this->bottom_dim_;
      output += this->top_dim_;
    }
  }
}

template <typename Dtype>
void ConvolutionLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                           const vector<Blob<Dtype>*>& bottom) {
  const bool for_weights = this->param_propagate_down_[0];
  const bool for_bias = this->bias_term_ && this->param_propagate_down_[1];
  const Dtype* weights = this->blobs_[0]->cpu_data();
  for (int i = 0; i < top.size(); ++i) {
    const Dtype* top_diff = top[i]->cpu_diff();
    for (int n = 0; n < this->num_; ++n) {
      const Dtype* output = top_diff + n * this->top_dim_;
      if (for_bias) { this->backward_cpu_bias(this->blobs_[1]->mutable_cpu_diff(), output); }
      if (for_weights) {
        this->weight_cpu_gemm(bottom[i]->cpu_data() + n * this->bottom_dim_, output,
                              this->blobs_[0]->mutable_cpu_diff());
      }
      if (propagate_down[i]) {
        this->backward_cpu_gemm(output, weights, bottom[i]->mutable_cpu_diff() + n * this->bottom_dim_);
      }
    }
  }
}

#ifdef CPU_ONLY
STUB_GPU(ConvolutionLayer);
#endif

INSTANTIATE_CLASS(ConvolutionLayer);

}  // namespace caffe
