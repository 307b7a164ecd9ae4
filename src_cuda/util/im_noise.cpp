#include <opencv2/imgcodecs/imgcodecs.hpp>
#include <opencv2/imgproc/imgproc.hpp>

#include <functional>
#include <vector>

#include "glog/logging.h"

#include "caffe/util/im_transforms.hpp"

namespace caffe {

namespace {

// Changes the luma of a colour image, or the values of a grey one.
cv::Mat OnLuma(const cv::Mat& image, const std::function<void(const cv::Mat&, cv::Mat*)>& change) {
  cv::Mat result;
  if (image.channels() == 1) {
    change(image, &result);
    return result;
  }
  cv::Mat ycrcb, luma;
  cv::cvtColor(image, ycrcb, cv::COLOR_BGR2YCrCb);
  cv::extractChannel(ycrcb, luma, 0);
  cv::Mat changed;
  change(luma, &changed);
  cv::insertChannel(changed, ycrcb, 0);
  cv::cvtColor(ycrcb, result, cv::COLOR_YCrCb2BGR);
  return result;
}

cv::Mat Posterized(const cv::Mat& image) {
  cv::Mat table(1, 256, CV_8U), result;
  for (int i = 0; i < 256; ++i) { table.at<uchar>(i) = static_cast<uchar>(i / 64 * 64 + 32); }
  cv::LUT(image, table, result);
  return result;
}

cv::Mat SaltPeppered(const cv::Mat& image, const SaltPepperParameter& param, TransformRng* rng) {
  const int channels = image.channels(), values = param.value_size();
  CHECK(values <= 1 || values == channels)
      << "saltpepper_param has " << values << " value, must have none, one, or one for each of the " << channels
      << " channels";
  std::vector<uchar> value(channels, 0);
  for (int c = 0; c < channels && values > 0; ++c) { value[c] = static_cast<uchar>(param.value(values == 1 ? 0 : c)); }
  cv::Mat result = image.clone();
  const int count = static_cast<int>(param.fraction() * image.cols * image.rows);
  for (int i = 0; i < count; ++i) {
    const int x = rng->Index(image.cols), y = rng->Index(image.rows);
    std::copy(value.begin(), value.end(), result.ptr<uchar>(y) + x * channels);
  }
  return result;
}

}  // namespace

cv::Mat ApplyNoise(const cv::Mat& image, const NoiseParameter& param, TransformRng* rng) {
  if (param.has_prob() && !rng->Happens(param.prob())) { return image; }
  cv::Mat result = image, next;
  const bool colour = image.channels() == 3;
  if (param.decolorize() && colour) {
    cv::Mat grey;
    cv::cvtColor(result, grey, cv::COLOR_BGR2GRAY);
    cv::cvtColor(grey, next, cv::COLOR_GRAY2BGR);
    result = next;
  }
  if (param.gauss_blur()) {
    cv::Mat blurred;
    cv::GaussianBlur(result, blurred, cv::Size(7, 7), 1.5);
    result = blurred;
  }
  if (param.hist_eq()) {
    result = OnLuma(result, [](const cv::Mat& luma, cv::Mat* changed) { cv::equalizeHist(luma, *changed); });
  }
  if (param.clahe()) {
    result = OnLuma(result, [](const cv::Mat& luma, cv::Mat* changed) { cv::createCLAHE(4)->apply(luma, *changed); });
  }
  if (param.jpeg() > 0) {
    std::vector<uchar> code;
    cv::imencode(".jpg", result, code, {cv::IMWRITE_JPEG_QUALITY, static_cast<int>(param.jpeg())});
    result = cv::imdecode(code, colour ? cv::IMREAD_COLOR : cv::IMREAD_GRAYSCALE);
  }
  if (param.erode()) {
    cv::Mat eroded;
    cv::erode(result, eroded, cv::getStructuringElement(cv::MORPH_ELLIPSE, cv::Size(3, 3), cv::Point(1, 1)));
    result = eroded;
  }
  if (param.posterize()) { result = Posterized(result); }
  if (param.inverse()) {
    cv::Mat inverted;
    cv::bitwise_not(result, inverted);
    result = inverted;
  }
  if (param.saltpepper()) { result = SaltPeppered(result, param.saltpepper_param(), rng); }
  if (param.convert_to_hsv() && colour) {
    cv::Mat hsv;
    cv::cvtColor(result, hsv, cv::COLOR_BGR2HSV);
    result = hsv;
  }
  if (param.convert_to_lab() && colour) {
    cv::Mat unit, lab;
    result.convertTo(unit, CV_32F, 1. / 255);
    cv::cvtColor(unit, lab, cv::COLOR_BGR2Lab);
    result = lab;
  }
  return result;
}

}  // namespace caffe
