#include "caffe/layers/base_conv_layer.hpp"

#include <algorithm>
#include <vector>

#include "caffe/filler.hpp"
#include "caffe/util/columns.hpp"
#include "caffe/util/cpu_gemm.hpp"
#include "caffe/util/im2col.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/parallel.hpp"
#include "caffe/util/simd.hpp"

namespace caffe {

namespace {

/// Reads a field that may be given not at all, once, or once an axis.
template <typename Field>
void OncePerAxis(const string& layer, const char* name, const Field& field, const int least, const int fallback,
                 const int axes, int* values) {
  CHECK(field.size() == axes || field.size() == 1 || (field.size() == 0 && fallback >= 0))
      << layer << ": " << name << " is given " << field.size() << " times, must be given once, or once for each of "
      << axes << " spatial axes.";
  for (int i = 0; i < axes; ++i) {
    values[i] = field.size() == 0 ? fallback : field.Get(field.size() == 1 ? 0 : i);
    CHECK_GE(values[i], least) << layer << ": " << name << " is " << values[i] << ", must be " << least << " or more.";
  }
}

/// The same, or given as name_h and name_w.
template <typename Field>
void PerAxis(const string& layer, const char* name, const Field& field, const bool by_side, const int h, const int w,
             const int least, const int fallback, const int axes, int* values) {
  if (!by_side) {
    OncePerAxis(layer, name, field, least, fallback, axes, values);
    return;
  }
  CHECK_EQ(axes, 2) << layer << ": " << name << "_h and " << name << "_w need two spatial axes, there are " << axes
                    << ".";
  CHECK_EQ(field.size(), 0) << layer << ": give " << name << ", or " << name << "_h and " << name << "_w, not both.";
  values[0] = h;
  values[1] = w;
  CHECK_GE(std::min(h, w), least) << layer << ": " << name << "_h is " << h << " and " << name << "_w is " << w
                                  << ", both must be " << least << " or more.";
}

}  // namespace

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const ConvolutionParameter& param = this->layer_param_.convolution_param();
  force_nd_im2col_ = param.force_nd_im2col();
  channel_axis_ = bottom[0]->CanonicalAxisIndex(param.axis());
  num_spatial_axes_ = bottom[0]->num_axes() - channel_axis_ - 1;
  channels_ = bottom[0]->shape(channel_axis_);
  reshaped_bottom_.clear();
  SetUpAxes(param);
  SetUpWeights(param);
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::SetUpAxes(const ConvolutionParameter& param) {
  const string layer = string(this->type()) + " layer " + this->layer_param_.name();
  CHECK(!param.has_tf_pad() || !reverse_dimensions()) << layer << ": tf_pad is for Convolution only.";
  const int axes = num_spatial_axes_;
  const vector<int> shape(1, std::max(axes, 1));
  kernel_shape_.Reshape(shape);
  stride_.Reshape(shape);
  pad_.Reshape(shape);
  dilation_.Reshape(shape);
  // -1: there is no kernel to fall back to.
  PerAxis(layer, "kernel_size", param.kernel_size(), param.has_kernel_h() || param.has_kernel_w(), param.kernel_h(),
          param.kernel_w(), 1, -1, axes, kernel_shape_.mutable_cpu_data());
  PerAxis(layer, "stride", param.stride(), param.has_stride_h() || param.has_stride_w(), param.stride_h(),
          param.stride_w(), 1, 1, axes, stride_.mutable_cpu_data());
  OncePerAxis(layer, "dilation", param.dilation(), 1, 1, axes, dilation_.mutable_cpu_data());
  int* pad = pad_.mutable_cpu_data();
  if (param.has_tf_pad()) {
    // VALID pads nothing. SAME depends on the size of the input: compute_output_shape sets it.
    std::fill(pad, pad + axes, 0);
  } else {
    PerAxis(layer, "pad", param.pad(), param.has_pad_h() || param.has_pad_w(), param.pad_h(), param.pad_w(), 0, 0, axes,
            pad);
  }
  pad_after_.assign(pad, pad + axes);
  is_1x1_ = true;
  for (int i = 0; i < axes; ++i) {
    // SAME never pads a kernel of 1.
    is_1x1_ = is_1x1_ && kernel_shape_.cpu_data()[i] == 1 && stride_.cpu_data()[i] == 1 && pad[i] == 0;
  }
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::SetUpWeights(const ConvolutionParameter& param) {
  const string layer = string(this->type()) + " layer " + this->layer_param_.name();
  num_output_ = param.num_output();
  group_ = param.group();
  bias_term_ = param.bias_term();
  CHECK_GT(num_output_, 0) << layer << ": num_output is missing.";
  CHECK_GT(group_, 0) << layer << ": group is " << group_ << ", must be 1 or more.";
  CHECK_EQ(channels_ % group_, 0) << layer << ": " << channels_ << " channels do not divide into " << group_
                                  << " groups.";
  CHECK_EQ(num_output_ % group_, 0) << layer << ": num_output " << num_output_ << " does not divide into " << group_
                                    << " groups.";
  conv_out_channels_ = reverse_dimensions() ? channels_ : num_output_;
  conv_in_channels_ = reverse_dimensions() ? num_output_ : channels_;

  vector<int> shape(1, conv_out_channels_);
  shape.push_back(conv_in_channels_ / group_);
  const int* kernel = kernel_shape_.cpu_data();
  shape.insert(shape.end(), kernel, kernel + num_spatial_axes_);
  vector<shared_ptr<Blob<Dtype>>> blobs;
  blobs.emplace_back(new Blob<Dtype>(shape));
  if (bias_term_) { blobs.emplace_back(new Blob<Dtype>(vector<int>(1, num_output_))); }
  if (this->blobs_.empty()) {
    const SyncedMemory::Passing passing;
    shared_ptr<Filler<Dtype>> filler(GetFiller<Dtype>(param.weight_filler()));
    filler->Fill(blobs[0].get());
    if (bias_term_) {
      filler.reset(GetFiller<Dtype>(param.bias_filler()));
      filler->Fill(blobs[1].get());
    }
    this->blobs_ = blobs;
  } else {
    CHECK_EQ(this->blobs_.size(), blobs.size())
        << layer << ": has " << this->blobs_.size() << " weight blobs, must have " << blobs.size() << ".";
    for (int i = 0; i < blobs.size(); ++i) {
      CHECK(this->blobs_[i]->shape() == blobs[i]->shape())
          << layer << ": weight blob " << i << " has shape " << this->blobs_[i]->shape_string() << ", must have "
          << blobs[i]->shape_string();
    }
  }
  kernel_dim_ = this->blobs_[0]->count(1);
  weight_offset_ = conv_out_channels_ * kernel_dim_ / group_;
  this->param_propagate_down_.resize(this->blobs_.size(), true);
}

template <typename Dtype>
bool BaseConvolutionLayer<Dtype>::HasShapes(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) const {
  if (reshaped_bottom_.empty()) { return false; }
  for (int i = 0; i < bottom.size(); ++i) {
    if (bottom[i] == top[i] || bottom[i]->shape() != reshaped_bottom_ || top[i]->shape() != reshaped_top_) {
      return false;
    }
  }
  return true;
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  bottom_shape_ = &bottom[0]->shape();
  if (HasShapes(bottom, top)) { return; }  // all that is set here follows from them
  const string layer = string(this->type()) + " layer " + this->layer_param_.name();
  const int spatial = channel_axis_ + 1;
  CHECK_EQ(bottom[0]->num_axes(), spatial + num_spatial_axes_)
      << layer << ": its bottom has " << bottom[0]->num_axes() << " axes, must have " << spatial + num_spatial_axes_
      << " as at set-up.";
  CHECK_EQ(bottom[0]->shape(channel_axis_), channels_)
      << layer << ": its bottom has " << bottom[0]->shape(channel_axis_) << " channels, must have " << channels_
      << " as at set-up.";
  for (int i = 1; i < bottom.size(); ++i) {
    CHECK(bottom[i]->shape() == bottom[0]->shape())
        << layer << ": bottom " << i << " has shape " << bottom[i]->shape_string() << ", must have that of bottom 0, "
        << bottom[0]->shape_string() << ".";
  }
  for (int i = 0; i < bottom.size(); ++i) {
    CHECK(bottom[i] != top[i]) << layer << ": in place it would read what it has written; give it a "
                               << "top of its own.";
  }
  num_ = bottom[0]->count(0, channel_axis_);
  compute_output_shape();
  vector<int> shape(bottom_shape_->begin(), bottom_shape_->begin() + channel_axis_);
  shape.push_back(num_output_);
  shape.insert(shape.end(), output_shape_.begin(), output_shape_.end());
  for (int i = 0; i < top.size(); ++i) { top[i]->Reshape(shape); }
  bottom_dim_ = bottom[0]->count(channel_axis_);
  top_dim_ = top[0]->count(channel_axis_);
  out_spatial_dim_ = top[0]->count(spatial);

  // From here on, input and output are those of the convolution.
  const Blob<Dtype>& in = *(reverse_dimensions() ? top : bottom)[0];
  const Blob<Dtype>& out = *(reverse_dimensions() ? bottom : top)[0];
  conv_out_spatial_dim_ = out.count(spatial);
  col_offset_ = kernel_dim_ * conv_out_spatial_dim_;
  output_offset_ = conv_out_channels_ * conv_out_spatial_dim_ / group_;
  conv_input_shape_.Reshape(vector<int>(1, num_spatial_axes_ + 1));
  std::copy(in.shape().begin() + channel_axis_, in.shape().end(), conv_input_shape_.mutable_cpu_data());
  if (num_spatial_axes_ == 2) {
    const int* kernel = kernel_shape_.cpu_data();
    const int* stride = stride_.cpu_data();
    const int* pad = pad_.cpu_data();
    const int* dilation = dilation_.cpu_data();
    plane_ = {in.shape(spatial),
              in.shape(spatial + 1),
              out.shape(spatial),
              out.shape(spatial + 1),
              kernel[0],
              kernel[1],
              stride[0],
              stride[1],
              pad[0],
              pad[1],
              dilation[0],
              dilation[1]};
  }
  direct_ = planar() && group_ == 1 && !is_1x1_ && DirectConvWins<Dtype>(plane_, conv_in_channels_);
  col_buffer_shape_.assign(1, kernel_dim_ * group_);
  col_buffer_shape_.insert(col_buffer_shape_.end(), out.shape().begin() + spatial, out.shape().end());
  // Takes memory when first written: never for a 1x1 kernel, and not by the
  // forward pass of a direct convolution.
  col_buffer_.Reshape(col_buffer_shape_);
  reshaped_bottom_ = bottom[0]->shape();
  reshaped_top_ = shape;
}

template <typename Dtype>
bool BaseConvolutionLayer<Dtype>::AsBlockConv(BlockConv<Dtype>* conv) const {
  *conv = {depthwise(), plane_, conv_in_channels_, conv_out_channels_, nullptr};
  return planar() && channel_axis_ == 1 && (group_ == 1 || conv->depthwise) && IsBlockConv(*conv);
}

template <typename Dtype>
bool BaseConvolutionLayer<Dtype>::pads_unevenly() const {
  return !std::equal(pad_after_.begin(), pad_after_.end(), pad_.cpu_data());
}

// ---- the steps on the CPU; those on the GPU are in base_conv_layer.cu

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::ToColumnsCpu(const Dtype* image) {
  Dtype* columns = col_buffer_.mutable_cpu_data();
  if (planar()) {
    ToColumns(plane_, conv_in_channels_, image, columns);
  } else {
    im2col_nd_cpu(image, num_spatial_axes_, conv_input_shape_.cpu_data(), col_buffer_shape_.data(),
                  kernel_shape_.cpu_data(), pad_.cpu_data(), stride_.cpu_data(), dilation_.cpu_data(), columns);
  }
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::FromColumnsCpu(Dtype* image) {
  const Dtype* columns = col_buffer_.cpu_data();
  if (planar()) {
    FromColumns(plane_, conv_in_channels_, columns, image);
  } else {
    col2im_nd_cpu(columns, num_spatial_axes_, conv_input_shape_.cpu_data(), col_buffer_shape_.data(),
                  kernel_shape_.cpu_data(), pad_.cpu_data(), stride_.cpu_data(), dilation_.cpu_data(), image);
  }
}

template <typename Dtype>
const Dtype* BaseConvolutionLayer<Dtype>::ColumnsCpu(const Dtype* input, const bool fresh) {
  if (is_1x1_) { return input; }
  if (fresh) { ToColumnsCpu(input); }
  return col_buffer_.cpu_data();
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::MultiplyCpu(const Dtype* columns, const Dtype* weights, const Dtype* bias,
                                              Dtype* output) {
  const int outputs = conv_out_channels_ / group_;
  for (int g = 0; g < group_; ++g) {
    CpuGemm<Dtype>(false, outputs, conv_out_spatial_dim_, kernel_dim_, weights + weight_offset_ * g,
                   columns + col_offset_ * g, bias == nullptr ? nullptr : bias + outputs * g, false,
                   output + output_offset_ * g);
  }
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::forward_cpu_gemm(const Dtype* input, const Dtype* weights, Dtype* output,
                                                   bool skip_im2col) {
  if (skip_im2col) {
    MultiplyCpu(ColumnsCpu(input, false), weights, nullptr, output);
  } else {
    ForwardCpuWithBias(input, weights, nullptr, output);
  }
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::ForwardCpuWithBias(const Dtype* input, const Dtype* weights, const Dtype* bias,
                                                     Dtype* output) {
  if (direct_) {
    DirectConvForward(plane_, conv_in_channels_, conv_out_channels_, input, weights, bias, output);
  } else {
    MultiplyCpu(ColumnsCpu(input, true), weights, bias, output);
  }
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::forward_cpu_bias(Dtype* output, const Dtype* bias) {
  for (int c = 0; c < num_output_; ++c) {
    Dtype* plane = output + c * out_spatial_dim_;
    for (int i = 0; i < out_spatial_dim_; ++i) { plane[i] += bias[c]; }
  }
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::backward_cpu_gemm(const Dtype* output, const Dtype* weights, Dtype* input) {
  Dtype* columns = is_1x1_ ? input : col_buffer_.mutable_cpu_data();
  for (int g = 0; g < group_; ++g) {
    CpuGemm<Dtype>(true, kernel_dim_, conv_out_spatial_dim_, conv_out_channels_ / group_, weights + weight_offset_ * g,
                   output + output_offset_ * g, nullptr, false, columns + col_offset_ * g);
  }
  if (!is_1x1_) { FromColumnsCpu(input); }
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::weight_cpu_gemm(const Dtype* input, const Dtype* output, Dtype* weights) {
  const Dtype* columns = ColumnsCpu(input, true);
  for (int g = 0; g < group_; ++g) {
    CpuGemmTransposed<Dtype>(conv_out_channels_ / group_, kernel_dim_, conv_out_spatial_dim_,
                             output + output_offset_ * g, columns + col_offset_ * g, weights + weight_offset_ * g);
  }
}

template <typename Dtype>
void BaseConvolutionLayer<Dtype>::backward_cpu_bias(Dtype* bias, const Dtype* output) {
  ParallelFor(num_output_, ParallelGrain(num_output_, 1 + 65536 / out_spatial_dim_),
              [=](const int begin, const int end) {
                for (int c = begin; c < end; ++c) {
                  bias[c] += SimdTotal(output + c * out_spatial_dim_, out_spatial_dim_);
                }
              });
}

INSTANTIATE_CLASS(BaseConvolutionLayer);

}  // namespace caffe
