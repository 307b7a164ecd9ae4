// Images for the tests of the transformations, and what compares them.
#ifndef SSDLITE_CAFFE_TEST_RANDOM_IMAGE_HPP_
#define SSDLITE_CAFFE_TEST_RANDOM_IMAGE_HPP_

#include <opencv2/core/core.hpp>

#include <cstdint>

#include "caffe/util/transform_rng.hpp"
#include "gtest/gtest.h"

namespace caffe {

inline cv::Mat RandomImage(int height, int width, int channels, uint64_t seed) {
  TransformRng rng(seed, 99);
  cv::Mat image(height, width, CV_8UC(channels));
  for (int i = 0; i < height * width * channels; ++i) { image.data[i] = static_cast<uchar>(rng.Index(256)); }
  return image;
}

inline void ExpectSame(const cv::Mat& expected, const cv::Mat& found) {
  ASSERT_EQ(expected.size(), found.size());
  ASSERT_EQ(expected.type(), found.type());
  EXPECT_EQ(0, cv::norm(expected, found, cv::NORM_INF));
}

// Every channel value through `change`, one by one.
template <typename Change>
cv::Mat EachValue(const cv::Mat& image, const Change& change) {
  cv::Mat result = image.clone();
  for (int i = 0; i < static_cast<int>(result.total()) * result.channels(); ++i) {
    result.data[i] = change(image.data[i]);
  }
  return result;
}

}  // namespace caffe

#endif  // SSDLITE_CAFFE_TEST_RANDOM_IMAGE_HPP_
