// Force-included into the fork's own im_transforms.cpp, which a prefix replaces: names of OpenCV 2 that only it uses.
#ifndef SSDLITE_CAFFE_OLD_NAMES_HPP_
#define SSDLITE_CAFFE_OLD_NAMES_HPP_

#define CV_BGR2GRAY ::cv::COLOR_BGR2GRAY
#define CV_BGR2HSV ::cv::COLOR_BGR2HSV
#define CV_BGR2Lab ::cv::COLOR_BGR2Lab
#define CV_BGR2YCrCb ::cv::COLOR_BGR2YCrCb
#define CV_GRAY2BGR ::cv::COLOR_GRAY2BGR
#define CV_IMWRITE_JPEG_QUALITY ::cv::IMWRITE_JPEG_QUALITY
#define CV_THRESH_BINARY_INV ::cv::THRESH_BINARY_INV
#define CV_THRESH_OTSU ::cv::THRESH_OTSU
#define CV_YCrCb2BGR ::cv::COLOR_YCrCb2BGR

#endif  // SSDLITE_CAFFE_OLD_NAMES_HPP_
