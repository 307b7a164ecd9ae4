#ifdef USE_CUDNN
#include <vector>

#include "caffe/layers/cudnn_conv_layer.hpp"
#include "caffe/util/pointwise.cuh"

namespace caffe {

/// Copies planes x h x w into planes x long_h x long_w, with zeros at the far ends.
template <typename Dtype>
__global__ void LengthenKernel(const int count, const Dtype* from, const int h, const int w, const int long_h,
                               const int long_w, Dtype* to) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) { return; }
  const int x = i % long_w;
  const int y = i / long_w % long_h;
  const int plane = i / long_w / long_h;
  to[i] = x < w && y < h ? from[(plane * h + y) * w + x] : Dtype(0);
}

/// Copies planes x long_h x long_w into planes x h x w, without the far ends.
template <typename Dtype>
__global__ void ShortenKernel(const int count, const Dtype* from, const int h, const int w, const int long_h,
                              const int long_w, Dtype* to) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) { return; }
  const int x = i % w;
  const int y = i / w % h;
  const int plane = i / w / h;
  to[i] = from[(plane * long_h + y) * long_w + x];
}

template <typename Dtype>
const Dtype* CuDNNConvolutionLayer<Dtype>::Extended(const Dtype* bottom) {
  if (!this->pads_unevenly()) { return bottom; }
  const int count = extended_.count();
  // NOLINT_NEXT_LINE(whitespace/operators)
  LengthenKernel<<<BlocksFor(count), CAFFE_CUDA_NUM_THREADS>>>(count, bottom, this->input_shape(1),
                                                               this->input_shape(2), extended_.height(),
                                                               extended_.width(), extended_.mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
  return extended_.gpu_data();
}

template <typename Dtype>
Dtype* CuDNNConvolutionLayer<Dtype>::ExtendedDiff(Dtype* bottom_diff) {
  return this->pads_unevenly() ? extended_.mutable_gpu_diff() : bottom_diff;
}

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::CutBack(Dtype* bottom_diff) {
  if (!this->pads_unevenly()) { return; }
  const int count = this->num_ * this->bottom_dim_;
  // NOLINT_NEXT_LINE(whitespace/operators)
  ShortenKernel<<<BlocksFor(count), CAFFE_CUDA_NUM_THREADS>>>(count, extended_.gpu_diff(), this->input_shape(1),
                                                              this->input_shape(2), extended_.height(),
                                                              extended_.width(), bottom_diff);
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
PointwiseShape CuDNNConvolutionLayer<Dtype>::pointwise_shape() const {
  return {this->num_, this->channels_, this->num_output_, this->out_spatial_dim_};
}

/// Whether cuBLAS may round floats as cuDNN may.
inline bool Tf32() { return cudnn::MathType() == CUDNN_DEFAULT_MATH; }

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::PointwiseBackward(const Dtype* top_diff, const Dtype* bottom, Dtype* bottom_diff) {
  const PointwiseShape shape = pointwise_shape();
  cudnn::Session& session = cudnn::Session::Get();
  if (this->bias_term_ && this->param_propagate_down_[1]) {
    Dtype* room = static_cast<Dtype*>(session.Workspace(PointwiseBiasRoom<Dtype>(shape)));
    PointwiseBiasGpu(shape, top_diff, room, this->blobs_[1]->mutable_gpu_diff());
  }
  if (this->param_propagate_down_[0]) {
    const size_t bytes = PointwiseWeightsRoom<Dtype>(shape);
    if (PointwiseWeightsFill(shape) && bytes <= cudnn::WorkspaceLimit()) {
      Dtype* room = static_cast<Dtype*>(session.Workspace(bytes));
      PointwiseWeightsGpu(shape, top_diff, bottom, Tf32(), room, this->blobs_[0]->mutable_gpu_diff());
    } else {
      WeightsByCuDNN(top_diff, bottom);
    }
  }
  if (bottom_diff != nullptr) { PointwiseDataGpu(shape, top_diff, this->blobs_[0]->gpu_data(), Tf32(), bottom_diff); }
}

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::WeightsByCuDNN(const Dtype* top_diff, const Dtype* bottom) {
  Describe();
  ChooseBackward();
  cudnn::Session& session = cudnn::Session::Get();
  // The scale `one` before the result makes cuDNN add to the gradient.
  const void* one = cudnn::dataType<Dtype>::one;
  CUDNN_CHECK(cudnnConvolutionBackwardFilter(session.handle(), one, in_, bottom, out_, top_diff, conv_,
                                             backward_filter_.algorithm, session.Workspace(backward_filter_.workspace),
                                             backward_filter_.workspace, one, filter_,
                                             this->blobs_[0]->mutable_gpu_diff()));
}

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (!by_cudnn()) {
    ConvolutionLayer<Dtype>::Forward_gpu(bottom, top);
    return;
  }
  if (pointwise()) {
    const Dtype* bias = this->bias_term_ ? this->blobs_[1]->gpu_data() : nullptr;
    for (int i = 0; i < bottom.size(); ++i) {
      PointwiseForwardGpu(pointwise_shape(), bottom[i]->gpu_data(), this->blobs_[0]->gpu_data(), bias, Tf32(),
                          top[i]->mutable_gpu_data());
    }
    return;
  }
  Describe();
  ChooseForward();
  cudnn::Session& session = cudnn::Session::Get();
  const void* one = cudnn::dataType<Dtype>::one;
  const void* zero = cudnn::dataType<Dtype>::zero;
  for (int i = 0; i < bottom.size(); ++i) {
    Dtype* output = top[i]->mutable_gpu_data();
    CUDNN_CHECK(cudnnConvolutionForward(session.handle(), one, in_, Extended(bottom[i]->gpu_data()), filter_,
                                        this->blobs_[0]->gpu_data(), conv_, forward_.algorithm,
                                        session.Workspace(forward_.workspace), forward_.workspace, zero, out_, output));
    if (this->bias_term_) {
      CUDNN_CHECK(cudnnAddTensor(session.handle(), one, bias_, this->blobs_[1]->gpu_data(), one, out_, output));
    }
  }
}

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                                const vector<Blob<Dtype>*>& bottom) {
  if (!by_cudnn()) {
    ConvolutionLayer<Dtype>::Backward_gpu(top, propagate_down, bottom);
    return;
  }
  if (pointwise()) {
    for (int i = 0; i < top.size(); ++i) {
      PointwiseBackward(top[i]->gpu_diff(), bottom[i]->gpu_data(),
                        propagate_down[i] ? bottom[i]->mutable_gpu_diff() : nullptr);
    }
    return;
  }
  Describe();
  ChooseBackward();
  cudnn::Session& session = cudnn::Session::Get();
  const void* one = cudnn::dataType<Dtype>::one;
  const void* zero = cudnn::dataType<Dtype>::zero;
  for (int i = 0; i < top.size(); ++i) {
    const Dtype* top_diff = top[i]->gpu_diff();
    // The scale `one` before the result makes cuDNN add to the gradient.
    if (this->bias_term_ && this->param_propagate_down_[1]) {
      CUDNN_CHECK(cudnnConvolutionBackwardBias(session.handle(), one, out_, top_diff, one, bias_,
                                               this->blobs_[1]->mutable_gpu_diff()));
    }
    if (this->param_propagate_down_[0]) { WeightsByCuDNN(top_diff, Extended(bottom[i]->gpu_data())); }
    if (propagate_down[i]) {
      Dtype* bottom_diff = bottom[i]->mutable_gpu_diff();
      CUDNN_CHECK(cudnnConvolutionBackwardData(
          session.handle(), one, filter_, this->blobs_[0]->gpu_data(), out_, top_diff, conv_, backward_data_.algorithm,
          session.Workspace(backward_data_.workspace), backward_data_.workspace, zero, in_, ExtendedDiff(bottom_diff)));
      CutBack(bottom_diff);
    }
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(CuDNNConvolutionLayer);

}  // namespace caffe
#endif  // USE_CUDNN
