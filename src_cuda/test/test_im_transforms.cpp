// The random numbers, the canvas and the distortions of im_transforms.
#include <opencv2/core/core.hpp>
#include <opencv2/imgproc/imgproc.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "caffe/util/im_transforms.hpp"
#include "gtest/gtest.h"
#include "random_image.hpp"

namespace caffe {

namespace {

uchar Rounded(double value) { return static_cast<uchar>(std::min(std::max(std::nearbyint(value), 0.), 255.)); }

}  // namespace

TEST(TransformRngTest, TestStreams) {
  TransformRng first(7, 3), again(7, 3), other(7, 4), seed(8, 3);
  std::set<uint64_t> drawn;
  for (int i = 0; i < 100; ++i) {
    const uint64_t value = first.Next();
    EXPECT_EQ(value, again.Next());
    drawn.insert(value);
    drawn.insert(other.Next());
    drawn.insert(seed.Next());
  }
  EXPECT_EQ(300, drawn.size());
}

TEST(TransformRngTest, TestRanges) {
  TransformRng rng(1);
  std::vector<int> counts(7, 0);
  double sum = 0;
  int often = 0;
  for (int i = 0; i < 70000; ++i) {
    const double value = rng.Uniform(-2, 6);
    EXPECT_GE(value, -2);
    EXPECT_LE(value, 6);
    sum += value;
    ++counts[rng.Index(7)];
    often += rng.Happens(0.25);
    EXPECT_TRUE(rng.Happens(1));
    EXPECT_FALSE(rng.Happens(0));
  }
  EXPECT_NEAR(2, sum / 70000, 0.05);
  EXPECT_NEAR(0.25, often / 70000., 0.01);
  for (int count : counts) { EXPECT_NEAR(10000, count, 500); }
  EXPECT_EQ(3, rng.Uniform(3, 2));
}

// From boxes to pixels and back.
TEST(CanvasTest, TestPixelsOf) {
  TransformRng rng(3);
  for (int i = 0; i < 2000; ++i) {
    const cv::Size size(1 + rng.Index(50), 1 + rng.Index(50));
    const double x = rng.Uniform(0, 1), y = rng.Uniform(0, 1);
    const Box box = {x, y, rng.Uniform(x, 1), rng.Uniform(y, 1)};
    const cv::Rect pixels = PixelsOf(box, size);
    EXPECT_GT(pixels.area(), 0);
    EXPECT_EQ(pixels, pixels & cv::Rect(cv::Point(), size));
    EXPECT_LE(std::abs(pixels.x - box.xmin * size.width), 1);
    EXPECT_LE(std::abs(pixels.y - box.ymin * size.height), 1);
    EXPECT_LE(std::abs(pixels.width - (box.xmax - box.xmin) * size.width), 1);
    EXPECT_LE(std::abs(pixels.height - (box.ymax - box.ymin) * size.height), 1);
    const Box frame = FrameOf(pixels, size);
    EXPECT_NEAR(pixels.x, frame.xmin * size.width, 1e-9);
    EXPECT_NEAR(pixels.y + pixels.height, frame.ymax * size.height, 1e-9);
  }
  EXPECT_EQ(cv::Rect(0, 0, 31, 17), PixelsOf(Box(), cv::Size(31, 17)));
}

// Expand and crop against a canvas that is painted in full, pixel by pixel; the frames against the positions.
TEST(CanvasTest, TestExpandAndCrop) {
  ExpansionParameter param;
  param.set_prob(1);
  param.set_max_expand_ratio(4);
  const cv::Scalar fill(104, 117, 123);
  int missed = 0;
  for (int seed = 0; seed < 200; ++seed) {
    TransformRng rng(seed);
    const cv::Mat image = RandomImage(1 + rng.Index(20), 1 + rng.Index(20), 3, seed);
    Canvas canvas(image);
    const Box frame = ExpandCanvas(param, fill, &rng, &canvas);
    EXPECT_GE(canvas.size.width, image.cols);
    EXPECT_LE(canvas.size.width, 4 * image.cols);
    // The image's corner on the canvas, from the frame alone.
    const int left = std::lround(-frame.xmin * image.cols), top = std::lround(-frame.ymin * image.rows);
    EXPECT_GE(left, 0);
    EXPECT_GE(top, 0);
    EXPECT_LE(left + image.cols, canvas.size.width);
    EXPECT_LE(top + image.rows, canvas.size.height);
    EXPECT_NEAR(canvas.size.width, (frame.xmax - frame.xmin) * image.cols, 1e-9);
    EXPECT_NEAR(canvas.size.height, (frame.ymax - frame.ymin) * image.rows, 1e-9);
    cv::Mat painted(canvas.size, CV_8UC3);
    for (int y = 0; y < painted.rows; ++y) {
      for (int x = 0; x < painted.cols; ++x) {
        const bool inside = x >= left && x < left + image.cols && y >= top && y < top + image.rows;
        painted.at<cv::Vec3b>(y, x) = inside ? image.at<cv::Vec3b>(y - top, x - left) : cv::Vec3b(104, 117, 123);
      }
    }
    ExpectSame(painted, canvas.Paint());
    for (int crop = 0; crop < 3; ++crop) {  // crops of crops
      const int x = rng.Index(painted.cols), y = rng.Index(painted.rows);
      const cv::Rect part(x, y, 1 + rng.Index(painted.cols - x), 1 + rng.Index(painted.rows - y));
      CropCanvas(part, &canvas);
      painted = painted(part).clone();
      missed += canvas.pixels.empty();
      ExpectSame(painted, canvas.Paint());
    }
  }
  EXPECT_GT(missed, 10);  // crops that hold no pixel of the image are among them
}

TEST(CanvasTest, TestExpandChances) {
  ExpansionParameter param;
  param.set_prob(0.5);
  param.set_max_expand_ratio(3);
  const cv::Mat image = RandomImage(40, 30, 3, 1);
  int expanded = 0;
  double largest = 0, smallest = 9;
  for (int seed = 0; seed < 2000; ++seed) {
    TransformRng rng(seed);
    Canvas canvas(image);
    const Box frame = ExpandCanvas(param, cv::Scalar(), &rng, &canvas);
    if (canvas.size != image.size()) {
      ++expanded;
      largest = std::max(largest, frame.ymax - frame.ymin);
      smallest = std::min(smallest, frame.ymax - frame.ymin);
    } else {
      EXPECT_EQ(image.data, canvas.Paint().data);
    }
  }
  EXPECT_NEAR(1000, expanded, 100);
  EXPECT_LE(largest, 3);
  EXPECT_GT(largest, 2.9);
  EXPECT_LT(smallest, 1.1);
  param.set_prob(1);
  param.set_max_expand_ratio(1);
  TransformRng rng(0);
  Canvas canvas(image);
  ExpandCanvas(param, cv::Scalar(), &rng, &canvas);
  EXPECT_EQ(image.size(), canvas.size);
}

TEST(DistortionTest, TestBrightnessAndContrast) {
  const cv::Mat image = RandomImage(13, 17, 3, 5);
  for (double delta : {-32., -7.3, 0., 11.8, 200.}) {
    Distortion distortion;
    distortion.brightness = delta;
    ExpectSame(EachValue(image, [=](uchar v) { return Rounded(v + static_cast<float>(delta)); }),
               ApplyDistortion(image, distortion));
  }
  for (double factor : {0., 0.5, 1.37, 2.5}) {
    Distortion distortion;
    distortion.contrast = factor;
    ExpectSame(EachValue(image, [=](uchar v) { return Rounded(v * static_cast<float>(factor)); }),
               ApplyDistortion(image, distortion));
  }
}

// Contrast before or after saturation and hue, each pixel by itself.
TEST(DistortionTest, TestSequence) {
  const cv::Mat image = RandomImage(9, 8, 3, 6);
  for (bool contrast_first : {false, true}) {
    Distortion distortion;
    distortion.contrast_first = contrast_first;
    distortion.brightness = 20;
    distortion.contrast = 1.4;
    distortion.saturation = 0.6;
    distortion.hue = -13;
    distortion.order = std::array<int, 3>{2, 0, 1};
    cv::Mat expected = image.clone();
    for (int i = 0; i < static_cast<int>(image.total()); ++i) {
      cv::Mat pixel = image.reshape(3, 1).colRange(i, i + 1).clone(), hsv;
      const auto contrast = [&pixel] { pixel = EachValue(pixel, [](uchar v) { return Rounded(v * 1.4f); }); };
      pixel = EachValue(pixel, [](uchar v) { return Rounded(v + 20); });
      if (contrast_first) { contrast(); }
      cv::cvtColor(pixel, hsv, cv::COLOR_BGR2HSV);
      hsv.data[1] = Rounded(hsv.data[1] * 0.6f);
      cv::cvtColor(hsv, pixel, cv::COLOR_HSV2BGR);
      cv::cvtColor(pixel, hsv, cv::COLOR_BGR2HSV);
      hsv.data[0] = Rounded(hsv.data[0] - 13.);
      cv::cvtColor(hsv, pixel, cv::COLOR_HSV2BGR);
      if (!contrast_first) { contrast(); }
      for (int c = 0; c < 3; ++c) { expected.data[3 * i + c] = pixel.data[(c + 2) % 3]; }
    }
    ExpectSame(expected, ApplyDistortion(image, distortion));
  }
}

// The input image is not changed, for any first step.
TEST(DistortionTest, TestInputStays) {
  const cv::Mat before = RandomImage(9, 33, 3, 7), image = before.clone();
  for (int step = 0; step < 5; ++step) {
    Distortion distortion;
    if (step == 0) { distortion.brightness = 9; }
    if (step == 1) { distortion.contrast = 0.5; }
    if (step == 2) { distortion.saturation = 0.5; }
    if (step == 3) { distortion.hue = 9; }
    if (step == 4) { distortion.order = std::array<int, 3>{1, 2, 0}; }
    EXPECT_GT(cv::norm(before, ApplyDistortion(image, distortion), cv::NORM_INF), 0) << step;
    ExpectSame(before, image);
  }
}

TEST(DistortionTest, TestKnownColours) {
  const cv::Mat red(2, 2, CV_8UC3, cv::Scalar(0, 0, 255));
  Distortion hue, grey;
  hue.hue = 60;  // 120 degrees: red to green
  grey.saturation = 0;
  ExpectSame(cv::Mat(2, 2, CV_8UC3, cv::Scalar(0, 255, 0)), ApplyDistortion(red, hue));
  ExpectSame(cv::Mat(2, 2, CV_8UC3, cv::Scalar(255, 255, 255)), ApplyDistortion(red, grey));
  // A grey image has no hue; and nothing happens where no step is drawn.
  const cv::Mat single = RandomImage(4, 5, 1, 2);
  hue.saturation = 2;
  hue.order = std::array<int, 3>{2, 1, 0};
  ExpectSame(single, ApplyDistortion(single, hue));
  EXPECT_EQ(red.data, ApplyDistortion(red, Distortion()).data);
}

TEST(DistortionTest, TestDraws) {
  DistortionParameter param;
  param.set_brightness_prob(0.5);
  param.set_brightness_delta(32);
  param.set_contrast_prob(0.25);
  param.set_contrast_lower(0.5);
  param.set_contrast_upper(1.5);
  param.set_saturation_prob(0.75);
  param.set_saturation_lower(0.25);
  param.set_saturation_upper(2);
  param.set_hue_prob(1);
  param.set_hue_delta(18);
  param.set_random_order_prob(0.1);
  std::vector<double> brightness, contrast, saturation, hue;
  std::map<std::array<int, 3>, int> orders;
  int first = 0, ordered = 0;
  const int count = 12000;
  for (int seed = 0; seed < count; ++seed) {
    TransformRng rng(seed);
    const Distortion d = DrawDistortion(param, &rng);
    const auto add = [](const std::optional<double>& value, std::vector<double>* values) {
      if (value) { values->push_back(*value); }
    };
    add(d.brightness, &brightness);
    add(d.contrast, &contrast);
    add(d.saturation, &saturation);
    add(d.hue, &hue);
    first += d.contrast_first;
    if (d.order) {
      ++ordered;
      ++orders[*d.order];
    }
  }
  const auto check = [](std::vector<double> values, double share, double lower, double upper) {
    EXPECT_NEAR(share * count, values.size(), 200);
    std::sort(values.begin(), values.end());
    const double tail = (upper - lower) * 0.01;
    EXPECT_GE(values.front(), lower);
    EXPECT_LE(values.front(), lower + tail);
    EXPECT_LE(values.back(), upper);
    EXPECT_GE(values.back(), upper - tail);
    EXPECT_NEAR((lower + upper) / 2, values[values.size() / 2], (upper - lower) * 0.05);
  };
  check(brightness, 0.5, -32, 32);
  check(contrast, 0.25, 0.5, 1.5);
  check(saturation, 0.75, 0.25, 2);
  check(hue, 1, -18, 18);
  EXPECT_NEAR(count / 2, first, 250);
  EXPECT_NEAR(count / 10, ordered, 150);
  EXPECT_EQ(6, orders.size());
  for (const auto& order : orders) { EXPECT_NEAR(ordered / 6, order.second, 60); }
  TransformRng rng(0);
  const Distortion none = DrawDistortion(DistortionParameter(), &rng);
  EXPECT_FALSE(none.brightness || none.contrast || none.saturation || none.hue || none.order);
}

TEST(DistortionDeathTest, TestRanges) {
  DistortionParameter param;
  param.set_contrast_lower(2);
  param.set_contrast_upper(1);
  EXPECT_DEATH(CheckDistortion(param, "layer 'data'"), "layer 'data': contrast_lower 2 and contrast_upper 1");
  param.Clear();
  param.set_hue_delta(-1);
  EXPECT_DEATH(CheckDistortion(param, "layer 'data'"), "hue_delta");
}

}  // namespace caffe
