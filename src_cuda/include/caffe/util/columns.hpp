#ifndef CAFFE_UTIL_COLUMNS_HPP_
#define CAFFE_UTIL_COLUMNS_HPP_

#include "caffe/util/plane_shape.hpp"

/**
 * A convolution over two spatial axes as a matrix product, on the layers' own threads (parallel.hpp).
 *
 * The columns are the matrix (channels kernel_h kernel_w) x (out_height out_width); base_conv_layer.hpp describes their
 * layout.
 */
namespace caffe {

/// columns = for each output position the values of the image that the kernel reads for it.
template <typename Dtype>
void ToColumns(const PlaneShape& shape, int channels, const Dtype* image, Dtype* columns);

/// image = the values of the columns, added up at the positions they came from.
template <typename Dtype>
void FromColumns(const PlaneShape& shape, int channels, const Dtype* columns, Dtype* image);

/// Whether DirectConvForward is faster: the rows of outputs fill vectors, and there are so few channels that the input
/// rows they need stay in the first-level cache, as in the first layer of a net.
template <typename Dtype>
bool DirectConvWins(const PlaneShape& shape, int channels);

/// output (outputs planes) = weights (outputs x channels kernel_h kernel_w) over the image [+ bias], without columns:
/// each row of outputs is multiplied straight from a band of input rows (band.hpp). bias may be null.
template <typename Dtype>
void DirectConvForward(const PlaneShape& shape, int channels, int outputs, const Dtype* image, const Dtype* weights,
                       const Dtype* bias, Dtype* output);

}  // namespace caffe

#endif  // CAFFE_UTIL_COLUMNS_HPP_
