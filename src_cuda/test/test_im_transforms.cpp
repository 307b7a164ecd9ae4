#include <opencv2/core/core.hpp>
#include <opencv2/imgproc/imgproc.hpp>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/util/im_transforms.hpp"

namespace caffe {

namespace {

cv::Mat RandomPicture(int height, int width, int channels, uint64_t seed) {
  TransformRng rng(seed, 99);
  cv::Mat picture(height, width, CV_8UC(channels));
  for (int i = 0; i < height * width * channels; ++i) { picture.data[i] = static_cast<uchar>(rng.Index(256)); }
  return picture;
}

void ExpectSame(const cv::Mat& expected, const cv::Mat& found) {
  ASSERT_EQ(expected.size(), found.size());
  ASSERT_EQ(expected.type(), found.type());
  EXPECT_EQ(0, cv::norm(expected, found, cv::NORM_INF));
}

uchar Rounded(double value) { return static_cast<uchar>(std::min(std::max(std::nearbyint(value), 0.), 255.)); }

// Every channel value through `change`, one by one.
template <typename Change>
cv::Mat EachValue(const cv::Mat& picture, const Change& change) {
  cv::Mat result = picture.clone();
  for (int i = 0; i < static_cast<int>(result.total()) * result.channels(); ++i) {
    result.data[i] = change(picture.data[i]);
  }
  return result;
}

ResizeParameter Policy(ResizeParameter_Resize_mode mode, int height, int width) {
  ResizeParameter param;
  param.set_resize_mode(mode);
  param.set_height(height);
  param.set_width(width);
  param.add_interp_mode(ResizeParameter_Interp_mode_NEAREST);
  return param;
}

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

// Where a box's pixels lie, and back.
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

// Expand and crop against a canvas that is painted in full, pixel by pixel; the frames against the places.
TEST(CanvasTest, TestExpandAndCrop) {
  ExpansionParameter param;
  param.set_prob(1);
  param.set_max_expand_ratio(4);
  const cv::Scalar fill(104, 117, 123);
  int missed = 0;
  for (int seed = 0; seed < 200; ++seed) {
    TransformRng rng(seed);
    const cv::Mat picture = RandomPicture(1 + rng.Index(20), 1 + rng.Index(20), 3, seed);
    Canvas canvas(picture);
    const Box frame = ExpandCanvas(param, fill, &rng, &canvas);
    EXPECT_GE(canvas.size.width, picture.cols);
    EXPECT_LE(canvas.size.width, 4 * picture.cols);
    // The picture's corner on the canvas, from the frame alone.
    const int left = std::lround(-frame.xmin * picture.cols), top = std::lround(-frame.ymin * picture.rows);
    EXPECT_GE(left, 0);
    EXPECT_GE(top, 0);
    EXPECT_LE(left + picture.cols, canvas.size.width);
    EXPECT_LE(top + picture.rows, canvas.size.height);
    EXPECT_NEAR(canvas.size.width, (frame.xmax - frame.xmin) * picture.cols, 1e-9);
    EXPECT_NEAR(canvas.size.height, (frame.ymax - frame.ymin) * picture.rows, 1e-9);
    cv::Mat painted(canvas.size, CV_8UC3);
    for (int y = 0; y < painted.rows; ++y) {
      for (int x = 0; x < painted.cols; ++x) {
        const bool inside = x >= left && x < left + picture.cols && y >= top && y < top + picture.rows;
        painted.at<cv::Vec3b>(y, x) = inside ? picture.at<cv::Vec3b>(y - top, x - left) : cv::Vec3b(104, 117, 123);
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
  EXPECT_GT(missed, 10);  // crops that hold no pixel of the picture are among them
}

TEST(CanvasTest, TestExpandChances) {
  ExpansionParameter param;
  param.set_prob(0.5);
  param.set_max_expand_ratio(3);
  const cv::Mat picture = RandomPicture(40, 30, 3, 1);
  int expanded = 0;
  double largest = 0, smallest = 9;
  for (int seed = 0; seed < 2000; ++seed) {
    TransformRng rng(seed);
    Canvas canvas(picture);
    const Box frame = ExpandCanvas(param, cv::Scalar(), &rng, &canvas);
    if (canvas.size != picture.size()) {
      ++expanded;
      largest = std::max(largest, frame.ymax - frame.ymin);
      smallest = std::min(smallest, frame.ymax - frame.ymin);
    } else {
      EXPECT_EQ(picture.data, canvas.Paint().data);
    }
  }
  EXPECT_NEAR(1000, expanded, 100);
  EXPECT_LE(largest, 3);
  EXPECT_GT(largest, 2.9);
  EXPECT_LT(smallest, 1.1);
  param.set_prob(1);
  param.set_max_expand_ratio(1);
  TransformRng rng(0);
  Canvas canvas(picture);
  ExpandCanvas(param, cv::Scalar(), &rng, &canvas);
  EXPECT_EQ(picture.size(), canvas.size);
}

TEST(DistortionTest, TestBrightnessAndContrast) {
  const cv::Mat picture = RandomPicture(13, 17, 3, 5);
  for (double delta : {-32., -7.3, 0., 11.8, 200.}) {
    Distortion distortion;
    distortion.brightness = delta;
    ExpectSame(EachValue(picture, [=](uchar v) { return Rounded(v + static_cast<float>(delta)); }),
               ApplyDistortion(picture, distortion));
  }
  for (double factor : {0., 0.5, 1.37, 2.5}) {
    Distortion distortion;
    distortion.contrast = factor;
    ExpectSame(EachValue(picture, [=](uchar v) { return Rounded(v * static_cast<float>(factor)); }),
               ApplyDistortion(picture, distortion));
  }
}

// Contrast before or after saturation and hue, each pixel by itself.
TEST(DistortionTest, TestSequence) {
  const cv::Mat picture = RandomPicture(9, 8, 3, 6);
  for (bool contrast_first : {false, true}) {
    Distortion distortion;
    distortion.contrast_first = contrast_first;
    distortion.brightness = 20;
    distortion.contrast = 1.4;
    distortion.saturation = 0.6;
    distortion.hue = -13;
    distortion.order = std::array<int, 3>{2, 0, 1};
    cv::Mat expected = picture.clone();
    for (int i = 0; i < static_cast<int>(picture.total()); ++i) {
      cv::Mat pixel = picture.reshape(3, 1).colRange(i, i + 1).clone(), hsv;
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
    ExpectSame(expected, ApplyDistortion(picture, distortion));
  }
}

// The picture given stays as it was, whichever step comes first.
TEST(DistortionTest, TestInputStays) {
  const cv::Mat before = RandomPicture(9, 33, 3, 7), picture = before.clone();
  for (int step = 0; step < 5; ++step) {
    Distortion distortion;
    if (step == 0) { distortion.brightness = 9; }
    if (step == 1) { distortion.contrast = 0.5; }
    if (step == 2) { distortion.saturation = 0.5; }
    if (step == 3) { distortion.hue = 9; }
    if (step == 4) { distortion.order = std::array<int, 3>{1, 2, 0}; }
    EXPECT_GT(cv::norm(before, ApplyDistortion(picture, distortion), cv::NORM_INF), 0) << step;
    ExpectSame(before, picture);
  }
}

TEST(DistortionTest, TestKnownColours) {
  const cv::Mat red(2, 2, CV_8UC3, cv::Scalar(0, 0, 255));
  Distortion hue, grey;
  hue.hue = 60;  // 120 degrees: red to green
  grey.saturation = 0;
  ExpectSame(cv::Mat(2, 2, CV_8UC3, cv::Scalar(0, 255, 0)), ApplyDistortion(red, hue));
  ExpectSame(cv::Mat(2, 2, CV_8UC3, cv::Scalar(255, 255, 255)), ApplyDistortion(red, grey));
  // A grey picture has no hue; and nothing happens where no step is drawn.
  const cv::Mat single = RandomPicture(4, 5, 1, 2);
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

// Each mode's sizes from the definition, with the widest and highest shapes.
TEST(ResizeTest, TestPlacement) {
  TransformRng rng(11);
  for (int i = 0; i < 3000; ++i) {
    const cv::Size picture(1 + rng.Index(600), 1 + rng.Index(600));
    const int height = 1 + rng.Index(320), width = 1 + rng.Index(320);
    const Placement warp = PlacementOf(Policy(ResizeParameter_Resize_mode_WARP, height, width), picture);
    EXPECT_EQ(cv::Size(width, height), warp.inner);
    EXPECT_EQ(warp.inner, warp.outer);
    const Placement pad =
        PlacementOf(Policy(ResizeParameter_Resize_mode_FIT_LARGE_SIZE_AND_PAD, height, width), picture);
    EXPECT_EQ(cv::Size(width, height), pad.outer);
    EXPECT_TRUE(pad.inner.width == width || pad.inner.height == height);
    EXPECT_EQ((width - pad.inner.width) / 2, pad.at.x);
    EXPECT_EQ((height - pad.inner.height) / 2, pad.at.y);
    const Placement cover = PlacementOf(Policy(ResizeParameter_Resize_mode_FIT_SMALL_SIZE, height, width), picture);
    EXPECT_EQ(cover.inner, cover.outer);
    EXPECT_GE(cover.inner.width, width);
    EXPECT_GE(cover.inner.height, height);
    EXPECT_TRUE(cover.inner.width == width || cover.inner.height == height);
    const double by_width = double(width) / picture.width, by_height = double(height) / picture.height;
    for (bool cover_all : {false, true}) {
      const double scale = cover_all ? std::max(by_width, by_height) : std::min(by_width, by_height);
      const cv::Size inner = cover_all ? cover.inner : pad.inner;
      EXPECT_EQ(std::max(std::floor(scale * picture.width + 1e-9), 1.), inner.width);
      EXPECT_EQ(std::max(std::floor(scale * picture.height + 1e-9), 1.), inner.height);
    }
  }
}

// One bright pixel of a picture, enlarged: its box says where it went, in each mode and on each axis.
TEST(ResizeTest, TestBoxFollowsPixels) {
  const cv::Size picture(12, 5);
  for (auto mode : {ResizeParameter_Resize_mode_WARP, ResizeParameter_Resize_mode_FIT_SMALL_SIZE,
                    ResizeParameter_Resize_mode_FIT_LARGE_SIZE_AND_PAD}) {
    for (const cv::Size& wanted : {cv::Size(120, 100), cv::Size(60, 120), cv::Size(240, 100)}) {
      ResizeParameter param = Policy(mode, wanted.height, wanted.width);
      param.add_pad_value(7);
      for (const cv::Point& spot : {cv::Point(0, 0), cv::Point(11, 4), cv::Point(3, 2)}) {
        cv::Mat source(picture, CV_8UC3, cv::Scalar::all(20));
        source.at<cv::Vec3b>(spot) = cv::Vec3b(255, 255, 255);
        const cv::Mat resized = ApplyResize(source, param, cv::INTER_NEAREST);
        const Box box = ResizedBox(FrameOf(cv::Rect(spot, cv::Size(1, 1)), picture), param, picture);
        cv::Mat bright;
        cv::inRange(resized, cv::Scalar::all(255), cv::Scalar::all(255), bright);
        const cv::Rect found = cv::boundingRect(bright);
        EXPECT_NEAR(found.x, box.xmin * resized.cols, 1);
        EXPECT_NEAR(found.y, box.ymin * resized.rows, 1);
        EXPECT_NEAR(found.br().x, box.xmax * resized.cols, 1);
        EXPECT_NEAR(found.br().y, box.ymax * resized.rows, 1);
        const Placement placement = PlacementOf(param, picture);
        cv::Mat pad;
        cv::inRange(resized, cv::Scalar::all(7), cv::Scalar::all(7), pad);
        EXPECT_EQ(placement.outer.area() - placement.inner.area(), cv::countNonZero(pad));
      }
    }
  }
}

TEST(ResizeTest, TestInterpolations) {
  const cv::Mat picture = RandomPicture(21, 34, 3, 8);
  ResizeParameter param = Policy(ResizeParameter_Resize_mode_WARP, 15, 19);
  param.clear_interp_mode();
  TransformRng rng(0);
  EXPECT_EQ(cv::INTER_LINEAR, DrawInterpolation(param, &rng));
  param.add_interp_mode(ResizeParameter_Interp_mode_LINEAR);
  param.add_interp_mode(ResizeParameter_Interp_mode_AREA);
  param.add_interp_mode(ResizeParameter_Interp_mode_NEAREST);
  param.add_interp_mode(ResizeParameter_Interp_mode_CUBIC);
  param.add_interp_mode(ResizeParameter_Interp_mode_LANCZOS4);
  std::map<int, int> counts;
  for (int i = 0; i < 5000; ++i) { ++counts[DrawInterpolation(param, &rng)]; }
  EXPECT_EQ(5, counts.size());
  for (int mode : {cv::INTER_LINEAR, cv::INTER_AREA, cv::INTER_NEAREST, cv::INTER_CUBIC, cv::INTER_LANCZOS4}) {
    EXPECT_NEAR(1000, counts[mode], 120);
    cv::Mat expected;
    cv::resize(picture, expected, cv::Size(19, 15), 0, 0, mode);
    ExpectSame(expected, ApplyResize(picture, param, mode));
  }
}

TEST(ResizeTest, TestPadModes) {
  const cv::Mat picture = RandomPicture(10, 20, 3, 9);
  ResizeParameter param = Policy(ResizeParameter_Resize_mode_FIT_LARGE_SIZE_AND_PAD, 20, 20);
  param.set_pad_mode(ResizeParameter_Pad_mode_REPEAT_NEAREST);
  cv::Mat resized = ApplyResize(picture, param, cv::INTER_NEAREST);
  ExpectSame(picture.row(0), resized.row(0));
  ExpectSame(picture.row(9), resized.row(19));
  param.set_pad_mode(ResizeParameter_Pad_mode_MIRRORED);
  resized = ApplyResize(picture, param, cv::INTER_NEAREST);
  ExpectSame(picture.row(1), resized.row(4));
  ExpectSame(picture.row(8), resized.row(15));
  param.set_pad_mode(ResizeParameter_Pad_mode_CONSTANT);
  param.add_pad_value(1);
  param.add_pad_value(2);
  param.add_pad_value(3);
  resized = ApplyResize(picture, param, cv::INTER_NEAREST);
  EXPECT_EQ(cv::Vec3b(1, 2, 3), resized.at<cv::Vec3b>(0, 7));
  param.add_pad_value(4);
  EXPECT_DEATH(ApplyResize(picture, param, cv::INTER_NEAREST), "4 pad_value");
  EXPECT_DEATH(ApplyResize(picture, ResizeParameter(), cv::INTER_NEAREST), "needs height and width");
}

TEST(NoiseTest, TestPointwise) {
  const cv::Mat picture = RandomPicture(16, 12, 3, 10);
  TransformRng rng(0);
  NoiseParameter inverse, posterize, decolorize;
  inverse.set_inverse(true);
  posterize.set_posterize(true);
  decolorize.set_decolorize(true);
  ExpectSame(EachValue(picture, [](uchar v) { return static_cast<uchar>(255 - v); }),
             ApplyNoise(picture, inverse, &rng));
  ExpectSame(EachValue(picture,
                       [](uchar v) {
                         return static_cast<uchar>(v < 64 ? 32 : v < 128 ? 96 : v < 192 ? 160 : 224);
                       }),
             ApplyNoise(picture, posterize, &rng));
  const cv::Mat grey = ApplyNoise(picture, decolorize, &rng);
  for (int i = 0; i < 16 * 12; ++i) {
    const uchar* p = picture.data + 3 * i;
    EXPECT_NEAR(0.114 * p[0] + 0.587 * p[1] + 0.299 * p[2], grey.data[3 * i], 1);
    EXPECT_EQ(grey.data[3 * i], grey.data[3 * i + 2]);
  }
}

TEST(NoiseTest, TestSaltPepper) {
  const cv::Mat picture(40, 50, CV_8UC3, cv::Scalar::all(100));
  NoiseParameter param;
  param.set_saltpepper(true);
  param.mutable_saltpepper_param()->set_fraction(0.1);
  for (int value : {9, 8, 7}) { param.mutable_saltpepper_param()->add_value(value); }
  TransformRng rng(4);
  const cv::Mat noisy = ApplyNoise(picture, param, &rng);
  int changed = 0;
  for (int i = 0; i < 2000; ++i) {
    const cv::Vec3b pixel = noisy.at<cv::Vec3b>(i / 50, i % 50);
    EXPECT_TRUE(pixel == cv::Vec3b(9, 8, 7) || pixel == cv::Vec3b(100, 100, 100));
    changed += pixel[0] == 9;
  }
  EXPECT_GT(changed, 170);  // 200 places, some of them drawn twice
  EXPECT_LE(changed, 200);
  ExpectSame(cv::Mat(40, 50, CV_8UC3, cv::Scalar::all(100)), picture);
}

// Each of the others changes the picture and keeps its size, in colour and in grey.
TEST(NoiseTest, TestOthersRun) {
  const std::vector<std::string> fields = {"hist_eq", "gauss_blur", "erode", "clahe"};
  for (int channels : {1, 3}) {
    cv::Mat picture = RandomPicture(32, 24, channels, 12);
    for (const std::string& field : fields) {
      NoiseParameter param;
      param.GetReflection()->SetBool(&param, param.GetDescriptor()->FindFieldByName(field), true);
      TransformRng rng(0);
      const cv::Mat noisy = ApplyNoise(picture, param, &rng);
      ASSERT_EQ(picture.size(), noisy.size());
      ASSERT_EQ(picture.type(), noisy.type());
      EXPECT_GT(cv::norm(picture, noisy, cv::NORM_INF), 0) << field;
      param.set_prob(0);
      EXPECT_EQ(picture.data, ApplyNoise(picture, param, &rng).data) << field;
    }
    NoiseParameter jpeg;
    jpeg.set_jpeg(30);
    TransformRng rng(0);
    EXPECT_EQ(picture.type(), ApplyNoise(picture, jpeg, &rng).type());
  }
  NoiseParameter lab;
  lab.set_convert_to_lab(true);
  TransformRng rng(0);
  const cv::Mat white = ApplyNoise(cv::Mat(2, 2, CV_8UC3, cv::Scalar::all(255)), lab, &rng);
  EXPECT_NEAR(100, white.at<cv::Vec3f>(0, 0)[0], 0.1);
  EXPECT_NEAR(0, white.at<cv::Vec3f>(0, 0)[1], 0.1);
}

}  // namespace caffe
