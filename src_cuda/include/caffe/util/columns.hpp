#ifndef CAFFE_UTIL_COLUMNS_HPP_
#define CAFFE_UTIL_COLUMNS_HPP_

#include "caffe/util/plane_shape.hpp"

/**
 * A convolution over pictures of two axes as a matrix product, on the layers' own threads (parallel.hpp).
 *
 * The columns are the matrix (channels kernel_h kernel_w) x (out_height out_width), layout at the top of
 * base_conv_layer.hpp.
 */
namespace caffe {

/// columns = what each output place meets of the image.
template <typename Dtype>
void ToColumns(const PlaneShape& shape, int channels, const Dtype* image, Dtype* columns);

/// image = the sum of the columns' values, each at the place it came from.
template <typename Dtype>
void FromColumns(const PlaneShape& shape, int channels, const Dtype* columns, Dtype* image);

/// Whether DirectConvForward is the faster way: rows of outputs that fill vectors, over so few channels that the rows
/// of input that they meet stay in the first-level cache, as in the first layer of a net.
template <typename Dtype>
bool DirectConvWins(const PlaneShape& shape, int channels);

/// output (outputs planes) = weights (outputs x channels kernel_h kernel_w) over the image [+ bias], without columns:
/// each row of outputs is multiplied straight from a band of input rows (band.hpp). bias may be null.
template <typename Dtype>
void DirectConvForward(const PlaneShape& shape, int channels, int outputs, const Dtype* image, const Dtype* weights,
                       const Dtype* bias, Dtype* output);

}  // namespace caffe

#endif  // CAFFE_UTIL_COLUMNS_HPP_
