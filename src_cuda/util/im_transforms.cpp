#include "caffe/util/im_transforms.hpp"

#include <opencv2/imgproc/imgproc.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "glog/logging.h"

namespace caffe {

cv::Mat Canvas::Paint() const {
  if (pixels.size() == size) { return pixels; }
  cv::Mat painted(size, type_, fill);
  if (!pixels.empty()) { pixels.copyTo(painted(cv::Rect(at, pixels.size()))); }
  return painted;
}

Box FrameOf(const cv::Rect& frame, const cv::Size& size) {
  const double width = size.width, height = size.height;
  return {frame.x / width, frame.y / height, (frame.x + frame.width) / width, (frame.y + frame.height) / height};
}

cv::Rect PixelsOf(const Box& box, const cv::Size& size) {
  const auto side = [](double lower, double upper, int length, int* start, int* extent) {
    *start = std::min(std::max(static_cast<int>(std::floor(lower * length)), 0), length - 1);
    *extent = std::min(std::max(static_cast<int>(std::floor((upper - lower) * length)), 1), length - *start);
  };
  cv::Rect pixels;
  side(box.xmin, box.xmax, size.width, &pixels.x, &pixels.width);
  side(box.ymin, box.ymax, size.height, &pixels.y, &pixels.height);
  return pixels;
}

void CropCanvas(const cv::Rect& frame, Canvas* canvas) {
  const cv::Rect visible = cv::Rect(canvas->at, canvas->pixels.size()) & frame;
  canvas->pixels = visible.empty() ? cv::Mat() : canvas->pixels(visible - canvas->at);
  canvas->at = visible.empty() ? cv::Point() : visible.tl() - frame.tl();
  canvas->size = frame.size();
}

Box ExpandCanvas(const ExpansionParameter& param, const cv::Scalar& fill, TransformRng* rng, Canvas* canvas) {
  const bool happens = rng->Happens(param.prob());
  // The SSD branch leaves images alone where the largest ratio is within 0.01 of 1.
  if (!happens || std::abs(param.max_expand_ratio() - 1.) < 1e-2) { return Box(); }
  const double ratio = rng->Uniform(1, param.max_expand_ratio());
  const cv::Size before = canvas->size;
  canvas->size = {std::max(static_cast<int>(before.width * ratio), before.width),
                  std::max(static_cast<int>(before.height * ratio), before.height)};
  const cv::Point move(rng->Index(canvas->size.width - before.width + 1),
                       rng->Index(canvas->size.height - before.height + 1));
  canvas->at += move;
  canvas->fill = fill;
  return FrameOf(cv::Rect(-move, canvas->size), before);
}

void CheckDistortion(const DistortionParameter& param, const std::string& where) {
  CHECK_GE(param.brightness_delta(), 0) << where << ": brightness_delta is " << param.brightness_delta()
                                        << ", must be 0 or more";
  CHECK_GE(param.hue_delta(), 0) << where << ": hue_delta is " << param.hue_delta() << ", must be 0 or more";
  CHECK(param.contrast_lower() >= 0 && param.contrast_lower() <= param.contrast_upper())
      << where << ": contrast_lower " << param.contrast_lower() << " and contrast_upper " << param.contrast_upper()
      << " must be 0 or more, the smaller first";
  CHECK(param.saturation_lower() >= 0 && param.saturation_lower() <= param.saturation_upper())
      << where << ": saturation_lower " << param.saturation_lower() << " and saturation_upper "
      << param.saturation_upper() << " must be 0 or more, the smaller first";
}

Distortion DrawDistortion(const DistortionParameter& param, TransformRng* rng) {
  const auto draw = [rng](double probability, double lower, double upper, std::optional<double>* value) {
    if (rng->Happens(probability)) { *value = rng->Uniform(lower, upper); }
  };
  Distortion distortion;
  distortion.contrast_first = rng->Happens(0.5);
  draw(param.brightness_prob(), -param.brightness_delta(), param.brightness_delta(), &distortion.brightness);
  draw(param.contrast_prob(), param.contrast_lower(), param.contrast_upper(), &distortion.contrast);
  draw(param.saturation_prob(), param.saturation_lower(), param.saturation_upper(), &distortion.saturation);
  draw(param.hue_prob(), -param.hue_delta(), param.hue_delta(), &distortion.hue);
  if (rng->Happens(param.random_order_prob())) {
    std::array<int, 3> order = {0, 1, 2};
    std::swap(order[2], order[rng->Index(3)]);
    std::swap(order[1], order[rng->Index(2)]);
    distortion.order = order;
  }
  return distortion;
}

namespace {

// The image with channel `index` of its HSV changed to scale * value + shift.
cv::Mat WithHsv(const cv::Mat& image, int index, double scale, double shift) {
  cv::Mat hsv, channel, result;
  cv::cvtColor(image, hsv, cv::COLOR_BGR2HSV);
  cv::extractChannel(hsv, channel, index);
  channel.convertTo(channel, -1, scale, shift);
  cv::insertChannel(channel, hsv, index);
  cv::cvtColor(hsv, result, cv::COLOR_HSV2BGR);
  return result;
}

cv::Mat Scaled(const cv::Mat& image, double scale, double shift) {
  cv::Mat scaled;
  image.convertTo(scaled, -1, scale, shift);
  return scaled;
}

}  // namespace

cv::Mat ApplyDistortion(const cv::Mat& image, const Distortion& distortion) {
  cv::Mat result = image;
  const bool colour = image.channels() == 3;
  if (distortion.brightness) { result = Scaled(result, 1, *distortion.brightness); }
  if (distortion.contrast && distortion.contrast_first) { result = Scaled(result, *distortion.contrast, 0); }
  if (distortion.saturation && colour) { result = WithHsv(result, 1, *distortion.saturation, 0); }
  if (distortion.hue && colour) { result = WithHsv(result, 0, 1, *distortion.hue); }
  if (distortion.contrast && !distortion.contrast_first) { result = Scaled(result, *distortion.contrast, 0); }
  if (distortion.order && colour) {
    const std::array<int, 3>& order = *distortion.order;
    const int pairs[] = {order[0], 0, order[1], 1, order[2], 2};
    cv::Mat mixed(result.size(), result.type());
    cv::mixChannels(&result, 1, &mixed, 1, pairs, 3);
    result = mixed;
  }
  return result;
}

Placement PlacementOf(const ResizeParameter& param, const cv::Size& image) {
  CHECK(param.height() > 0 && param.width() > 0)
      << "resize_param needs height and width, has " << param.height() << " and " << param.width();
  const cv::Size wanted(param.width(), param.height());
  // In integers: each side of the result that keeps the image's shape, given the other wanted side.
  const int64_t w = image.width, h = image.height;
  const int by_width = std::max<int>(wanted.width * h / w, 1);
  const int by_height = std::max<int>(wanted.height * w / h, 1);
  const bool wider = w * wanted.height > h * wanted.width;
  switch (param.resize_mode()) {
    case ResizeParameter_Resize_mode_FIT_LARGE_SIZE_AND_PAD: {
      const cv::Size inner = wider ? cv::Size(wanted.width, by_width) : cv::Size(by_height, wanted.height);
      return {inner, cv::Point((wanted.width - inner.width) / 2, (wanted.height - inner.height) / 2), wanted};
    }
    case ResizeParameter_Resize_mode_FIT_SMALL_SIZE: {
      const cv::Size inner = wider ? cv::Size(by_height, wanted.height) : cv::Size(wanted.width, by_width);
      return {inner, cv::Point(), inner};
    }
    default: return {wanted, cv::Point(), wanted};
  }
}

int DrawInterpolation(const ResizeParameter& param, TransformRng* rng) {
  if (param.interp_mode_size() == 0) { return cv::INTER_LINEAR; }
  switch (param.interp_mode(rng->Index(param.interp_mode_size()))) {
    case ResizeParameter_Interp_mode_AREA: return cv::INTER_AREA;
    case ResizeParameter_Interp_mode_NEAREST: return cv::INTER_NEAREST;
    case ResizeParameter_Interp_mode_CUBIC: return cv::INTER_CUBIC;
    case ResizeParameter_Interp_mode_LANCZOS4: return cv::INTER_LANCZOS4;
    default: return cv::INTER_LINEAR;
  }
}

cv::Mat ApplyResize(const cv::Mat& image, const ResizeParameter& param, int interpolation) {
  const Placement placement = PlacementOf(param, image.size());
  cv::Mat resized;
  cv::resize(image, resized, placement.inner, 0, 0, interpolation);
  if (placement.inner == placement.outer) { return resized; }
  const int channels = image.channels(), values = param.pad_value_size();
  CHECK(values <= 1 || values == channels)
      << "resize_param has " << values << " pad_value, must have none, one, or one for each of the " << channels
      << " channels";
  cv::Scalar pad;
  for (int c = 0; c < channels && values > 0; ++c) { pad[c] = param.pad_value(values == 1 ? 0 : c); }
  int border = cv::BORDER_CONSTANT;
  if (param.pad_mode() == ResizeParameter_Pad_mode_MIRRORED) {
    border = cv::BORDER_REFLECT101;
  } else if (param.pad_mode() == ResizeParameter_Pad_mode_REPEAT_NEAREST) {
    border = cv::BORDER_REPLICATE;
  }
  const cv::Size rest = placement.outer - placement.inner;
  cv::copyMakeBorder(resized, resized, placement.at.y, rest.height - placement.at.y, placement.at.x,
                     rest.width - placement.at.x, border, pad);
  return resized;
}

Box ResizedBox(const Box& box, const ResizeParameter& param, const cv::Size& image) {
  const Placement placement = PlacementOf(param, image);
  // The output is a frame around the resized image.
  return Relative(FrameOf(cv::Rect(-placement.at, placement.outer), placement.inner), box);
}

}  // namespace caffe
