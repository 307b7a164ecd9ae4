// Force-included into every C++ file: OpenCV 2 names that the fork's sources use, defined as OpenCV 4's. Macros, which
// cost no compile time and do not depend on the order of includes.
#ifndef SSDLITE_CAFFE_COMPAT_NAMES_HPP_
#define SSDLITE_CAFFE_COMPAT_NAMES_HPP_

#include <opencv2/core/cvdef.h>

#ifndef CV_FOURCC_MACRO  // newer releases have it, and a function CV_FOURCC
#define CV_FOURCC ::cv::VideoWriter::fourcc
#endif
#define CV_CAP_PROP_FRAME_COUNT ::cv::CAP_PROP_FRAME_COUNT
#define CV_CAP_PROP_POS_FRAMES ::cv::CAP_PROP_POS_FRAMES
#define CV_FILLED ::cv::FILLED
#define CV_LOAD_IMAGE_COLOR ::cv::IMREAD_COLOR
#define CV_LOAD_IMAGE_GRAYSCALE ::cv::IMREAD_GRAYSCALE
#define CV_RGB(r, g, b) ::cv::Scalar((b), (g), (r), 0)

#endif  // SSDLITE_CAFFE_COMPAT_NAMES_HPP_
