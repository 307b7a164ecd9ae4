#ifdef USE_CUDNN
#include "caffe/layers/cudnn_conv_layer.hpp"

#include <algorithm>
#include <vector>

namespace caffe {

namespace {

/**
 * The first algorithm of cuDNN's list, best first, whose workspace is within the limit; false if there is none.
 *
 *     list(count, &returned, results)   one of cudnnGetConvolution*Algorithm_v7
 *     size(algorithm, &bytes)           one of cudnnGetConvolution*WorkspaceSize
 *
 * The size is asked for again, because the listed one is for the listed math type.
 */
template <typename Result, typename Choice, typename List, typename Size>
bool Choose(const int most, const size_t limit, const List& list, const Size& size, Choice* choice) {
  std::vector<Result> results(most);
  int returned = 0;
  CUDNN_CHECK(list(most, &returned, results.data()));
  const bool deterministic = cudnn::Deterministic();
  for (int i = 0; i < returned; ++i) {
    const Result& result = results[i];
    size_t bytes = 0;
    if (result.status == CUDNN_STATUS_SUCCESS && (!deterministic || result.determinism == CUDNN_DETERMINISTIC) &&
        size(result.algo, &bytes) == CUDNN_STATUS_SUCCESS && bytes <= limit) {
      choice->algorithm = result.algo;
      choice->workspace = bytes;
      return true;
    }
  }
  return false;
}

/// Calls choose(limit) with the usual limit; if the device lacks the memory, with what is reserved already, and then
/// with 0.
template <typename F>
void ChooseWithin(const string& layer, const size_t& needed, const F& choose) {
  cudnn::Session& session = cudnn::Session::Get();
  const size_t room = session.capacity();
  CHECK(choose(cudnn::WorkspaceLimit()) || choose(0))
      << "Convolution layer " << layer << ": cuDNN has no algorithm for it within a workspace of "
      << cudnn::WorkspaceLimit() << " bytes; raise CAFFE_CUDNN_WORKSPACE_MB, or set engine: CAFFE.";
  if (session.Reserve(needed)) { return; }
  LOG(WARNING) << "Convolution layer " << layer << ": no GPU memory for a "
               << "workspace of " << needed << " bytes, taking less.";
  if (choose(room) && session.Reserve(needed)) { return; }
  CHECK(choose(0)) << "Convolution layer " << layer << ": out of GPU memory for cuDNN's workspace.";
}

}  // namespace

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  ConvolutionLayer<Dtype>::LayerSetUp(bottom, top);
  described_.clear();
}

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::Describe() {
  if (described_ == *this->bottom_shape_) { return; }
  described_ = *this->bottom_shape_;
  forward_chosen_ = backward_chosen_ = false;
  const int* kernel = this->kernel_shape_.cpu_data();
  const int* stride = this->stride_.cpu_data();
  const int* pad = this->pad_.cpu_data();
  const int* dilation = this->dilation_.cpu_data();
  const cudnnDataType_t type = cudnn::dataType<Dtype>::type;
  const int in_h = this->input_shape(1) + this->pad_after_[0] - pad[0];
  const int in_w = this->input_shape(2) + this->pad_after_[1] - pad[1];
  if (this->pads_unevenly()) { extended_.Reshape(this->num_, this->channels_, in_h, in_w); }
  CUDNN_CHECK(cudnnSetTensor4dDescriptor(in_, CUDNN_TENSOR_NCHW, type, this->num_, this->channels_, in_h, in_w));
  CUDNN_CHECK(cudnnSetTensor4dDescriptor(out_, CUDNN_TENSOR_NCHW, type, this->num_, this->num_output_,
                                         this->output_shape_[0], this->output_shape_[1]));
  CUDNN_CHECK(cudnnSetTensor4dDescriptor(bias_, CUDNN_TENSOR_NCHW, type, 1, this->num_output_, 1, 1));
  CUDNN_CHECK(cudnnSetFilter4dDescriptor(filter_, type, CUDNN_TENSOR_NCHW, this->num_output_,
                                         this->channels_ / this->group_, kernel[0], kernel[1]));
  CUDNN_CHECK(cudnnSetConvolution2dDescriptor(conv_, pad[0], pad[1], stride[0], stride[1], dilation[0], dilation[1],
                                              CUDNN_CROSS_CORRELATION, type));
  CUDNN_CHECK(cudnnSetConvolutionGroupCount(conv_, this->group_));
  CUDNN_CHECK(cudnnSetConvolutionMathType(conv_, cudnn::MathType()));
}

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::ChooseForward() {
  if (forward_chosen_) { return; }
  const cudnnHandle_t handle = cudnn::Session::Get().handle();
  int most;
  CUDNN_CHECK(cudnnGetConvolutionForwardAlgorithmMaxCount(handle, &most));
  ChooseWithin(this->layer_param_.name(), forward_.workspace, [&](const size_t limit) {
    return Choose<cudnnConvolutionFwdAlgoPerf_t>(
        most, limit,
        [&](int count, int* returned, cudnnConvolutionFwdAlgoPerf_t* list) {
          return cudnnGetConvolutionForwardAlgorithm_v7(handle, in_, filter_, conv_, out_, count, returned, list);
        },
        [&](cudnnConvolutionFwdAlgo_t algorithm, size_t* bytes) {
          return cudnnGetConvolutionForwardWorkspaceSize(handle, in_, filter_, conv_, out_, algorithm, bytes);
        },
        &forward_);
  });
  forward_chosen_ = true;
}

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::ChooseBackward() {
  if (backward_chosen_) { return; }
  const cudnnHandle_t handle = cudnn::Session::Get().handle();
  int most;
  CUDNN_CHECK(cudnnGetConvolutionBackwardDataAlgorithmMaxCount(handle, &most));
  ChooseWithin(this->layer_param_.name(), backward_data_.workspace, [&](const size_t limit) {
    return Choose<cudnnConvolutionBwdDataAlgoPerf_t>(
        most, limit,
        [&](int count, int* returned, cudnnConvolutionBwdDataAlgoPerf_t* list) {
          return cudnnGetConvolutionBackwardDataAlgorithm_v7(handle, filter_, out_, conv_, in_, count, returned, list);
        },
        [&](cudnnConvolutionBwdDataAlgo_t algorithm, size_t* bytes) {
          return cudnnGetConvolutionBackwardDataWorkspaceSize(handle, filter_, out_, conv_, in_, algorithm, bytes);
        },
        &backward_data_);
  });
  CUDNN_CHECK(cudnnGetConvolutionBackwardFilterAlgorithmMaxCount(handle, &most));
  ChooseWithin(this->layer_param_.name(), backward_filter_.workspace, [&](const size_t limit) {
    return Choose<cudnnConvolutionBwdFilterAlgoPerf_t>(
        most, limit,
        [&](int count, int* returned, cudnnConvolutionBwdFilterAlgoPerf_t* list) {
          return cudnnGetConvolutionBackwardFilterAlgorithm_v7(handle, in_, out_, conv_, filter_, count, returned,
                                                               list);
        },
        [&](cudnnConvolutionBwdFilterAlgo_t algorithm, size_t* bytes) {
          return cudnnGetConvolutionBackwardFilterWorkspaceSize(handle, in_, out_, conv_, filter_, algorithm, bytes);
        },
        &backward_filter_);
  });
  backward_chosen_ = true;
}

INSTANTIATE_CLASS(CuDNNConvolutionLayer);

}  // namespace caffe
#endif  // USE_CUDNN
