#ifndef CAFFE_BASE_CONVOLUTION_LAYER_HPP_
#define CAFFE_BASE_CONVOLUTION_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/block_conv.hpp"
#include "caffe/util/plane_shape.hpp"

namespace caffe {

/**
 * @brief What Convolution and Deconvolution share: parameters, weights, and a convolution as a matrix product.
 *
 * Shapes, from the convolution's side (Deconvolution runs it backwards: its bottom is the convolution's output):
 *
 *     input    N x C x I1 x .. x In       C channels before the spatial axes
 *     weights  O x C/group x K1 x .. x Kn     O = num_output
 *     bias     O
 *     output   N x O x P1 x .. x Pn
 *     columns  C K1 .. Kn x P1 .. Pn      one image at a time
 *
 * Row (c, k1, .., kn) of the columns holds the values of input channel c at p stride - pad + k dilation for each output
 * position p (0 outside the input). The output of a group is the product of its weights with its rows of the columns. A
 * 1x1 kernel with stride 1 and no padding needs no columns: the input is the matrix already. Nor does the forward pass
 * on the CPU where DirectConvWins (util/columns.hpp) is true.
 *
 * tf_pad can pad the two sides of an axis differently: pad_ is the padding before, pad_after_ the padding after.
 *
 * The protected functions in snake_case have the names that the fork's Deconvolution calls. Source: Chellapilla et al.,
 * High Performance Convolutional Neural Networks for Document Processing (2006), for the columns.
 */
template <typename Dtype>
class BaseConvolutionLayer : public Layer<Dtype> {
 public:
  explicit BaseConvolutionLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);

  virtual inline int MinBottomBlobs() const { return 1; }
  virtual inline int MinTopBlobs() const { return 1; }
  virtual inline bool EqualNumBottomTopBlobs() const { return true; }

  /// The convolution for util/block_conv.hpp, once it has its shapes; false if that does not compute it. Without the
  /// weights, which Packed gives.
  bool AsBlockConv(BlockConv<Dtype>* conv) const;
  shared_ptr<const PackedWeights<Dtype>> Packed() { return packed_.Get(this->blobs_, depthwise()); }

 protected:
  /// Whether there is one kernel a channel, on two spatial axes.
  virtual bool depthwise() const { return false; }

  // All of these work on one image: input, output and their gradients point to its first value. skip_im2col: the
  // columns are still those of this input, made by weight_cpu_gemm.

  /// output = weights * columns(input)
  void forward_cpu_gemm(const Dtype* input, const Dtype* weights, Dtype* output, bool skip_im2col = false);
  /// output = weights * columns(input) [+ bias], in one pass over the output; bias may be null
  void ForwardCpuWithBias(const Dtype* input, const Dtype* weights, const Dtype* bias, Dtype* output);
  /// output += bias
  void forward_cpu_bias(Dtype* output, const Dtype* bias);
  /// input = the columns weights^T * output, added up at the positions they came from
  void backward_cpu_gemm(const Dtype* output, const Dtype* weights, Dtype* input);
  /// weights += output * columns(input)^T
  void weight_cpu_gemm(const Dtype* input, const Dtype* output, Dtype* weights);
  /// bias += output, summed over its positions
  void backward_cpu_bias(Dtype* bias, const Dtype* output);

#ifndef CPU_ONLY
  void forward_gpu_gemm(const Dtype* input, const Dtype* weights, Dtype* output, bool skip_im2col = false);
  void forward_gpu_bias(Dtype* output, const Dtype* bias);
  void backward_gpu_gemm(const Dtype* output, const Dtype* weights, Dtype* input);
  void weight_gpu_gemm(const Dtype* input, const Dtype* output, Dtype* weights);
  void backward_gpu_bias(Dtype* bias, const Dtype* output);
#endif

  /// Size of bottom's axis: 0 the channels, 1 and up the spatial axes.
  inline int input_shape(int i) const { return (*bottom_shape_)[channel_axis_ + i]; }
  /// Whether some axis is padded by more after than before.
  bool pads_unevenly() const;

  /// True for Deconvolution: bottom is the convolution's output.
  virtual bool reverse_dimensions() = 0;
  /// Sets output_shape_ (the spatial axes of top), and pad_, pad_after_ where
  /// they depend on the size of the input.
  virtual void compute_output_shape() = 0;

  // One value a spatial axis.
  Blob<int> kernel_shape_;
  Blob<int> stride_;
  Blob<int> pad_;
  Blob<int> dilation_;
  vector<int> pad_after_;
  vector<int> output_shape_;
  /// The same for two spatial axes, with the convolution's input and output.
  PlaneShape plane_;
  /// Channels and spatial axes of the convolution's input.
  Blob<int> conv_input_shape_;
  /// Rows of the columns, then the spatial axes of the convolution's output.
  vector<int> col_buffer_shape_;
  const vector<int>* bottom_shape_;

  int num_spatial_axes_;
  int channel_axis_;
  int num_;         // images
  int channels_;    // of bottom
  int num_output_;  // channels of top
  int group_;
  int bottom_dim_;       // values in one image of bottom
  int top_dim_;          // values in one image of top
  int out_spatial_dim_;  // values in one channel of top
  int weight_offset_;    // weights of one group
  bool bias_term_;
  bool is_1x1_;
  bool force_nd_im2col_;

 private:
  void SetUpAxes(const ConvolutionParameter& param);
  void SetUpWeights(const ConvolutionParameter& param);
  /// Whether the blobs have the shapes that Reshape has seen and given last.
  bool HasShapes(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) const;
  /// Whether plane_ describes the convolution: two spatial axes, and force_nd_im2col is not set.
  bool planar() const { return num_spatial_axes_ == 2 && !force_nd_im2col_; }
  void ToColumnsCpu(const Dtype* image);
  void FromColumnsCpu(Dtype* image);
  const Dtype* ColumnsCpu(const Dtype* input, bool fresh);
  void MultiplyCpu(const Dtype* columns, const Dtype* weights, const Dtype* bias, Dtype* output);
#ifndef CPU_ONLY
  void ToColumnsGpu(const Dtype* image);
  void FromColumnsGpu(Dtype* image);
  const Dtype* ColumnsGpu(const Dtype* input, bool fresh);
  const Dtype* OnesGpu();
#endif

  vector<int> reshaped_bottom_, reshaped_top_;
  int conv_out_channels_;
  int conv_in_channels_;
  int conv_out_spatial_dim_;  // positions in one channel of the convolution's output
  int kernel_dim_;            // weights of one output channel
  int col_offset_;            // values in the columns of one group
  int output_offset_;         // values in the output of one group

  bool direct_;  // the forward pass on the CPU makes no columns

  PackedWeightsOfLayer<Dtype> packed_;
  Blob<Dtype> col_buffer_;
  Blob<Dtype> ones_;
};

}  // namespace caffe

#endif  // CAFFE_BASE_CONVOLUTION_LAYER_HPP_
