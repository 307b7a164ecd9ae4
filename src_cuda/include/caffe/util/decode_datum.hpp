#ifndef CAFFE_UTIL_DECODE_DATUM_HPP_
#define CAFFE_UTIL_DECODE_DATUM_HPP_

#include <opencv2/core/core.hpp>

#include <string>

#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief The image of a datum, encoded or as raw pixels, 8 bits a channel.
 *
 * @param channels
 *    1 or 3 to have encoded images decoded to grey or colour, 0 to keep the image's own channels. The orientation that
 *    an encoder may have noted is ignored: boxes are annotated on the pixels as they are stored.
 * @return an empty string, or what is wrong with the datum.
 */
std::string DecodeDatum(const Datum& datum, int channels, cv::Mat* image);

}  // namespace caffe

#endif  // CAFFE_UTIL_DECODE_DATUM_HPP_
