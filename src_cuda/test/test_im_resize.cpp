// The resize modes, interpolations and paddings of im_transforms.
#include <opencv2/core/core.hpp>
#include <opencv2/imgproc/imgproc.hpp>

#include <algorithm>
#include <cmath>
#include <map>

#include "caffe/util/im_transforms.hpp"
#include "gtest/gtest.h"
#include "random_image.hpp"

namespace caffe {

namespace {

ResizeParameter Policy(ResizeParameter_Resize_mode mode, int height, int width) {
  ResizeParameter param;
  param.set_resize_mode(mode);
  param.set_height(height);
  param.set_width(width);
  param.add_interp_mode(ResizeParameter_Interp_mode_NEAREST);
  return param;
}

}  // namespace

// Each mode's sizes from the definition, with the widest and highest shapes.
TEST(ResizeTest, TestPlacement) {
  TransformRng rng(11);
  for (int i = 0; i < 3000; ++i) {
    const cv::Size image(1 + rng.Index(600), 1 + rng.Index(600));
    const int height = 1 + rng.Index(320), width = 1 + rng.Index(320);
    const Placement warp = PlacementOf(Policy(ResizeParameter_Resize_mode_WARP, height, width), image);
    EXPECT_EQ(cv::Size(width, height), warp.inner);
    EXPECT_EQ(warp.inner, warp.outer);
    const Placement pad = PlacementOf(Policy(ResizeParameter_Resize_mode_FIT_LARGE_SIZE_AND_PAD, height, width), image);
    EXPECT_EQ(cv::Size(width, height), pad.outer);
    EXPECT_TRUE(pad.inner.width == width || pad.inner.height == height);
    EXPECT_EQ((width - pad.inner.width) / 2, pad.at.x);
    EXPECT_EQ((height - pad.inner.height) / 2, pad.at.y);
    const Placement cover = PlacementOf(Policy(ResizeParameter_Resize_mode_FIT_SMALL_SIZE, height, width), image);
    EXPECT_EQ(cover.inner, cover.outer);
    EXPECT_GE(cover.inner.width, width);
    EXPECT_GE(cover.inner.height, height);
    EXPECT_TRUE(cover.inner.width == width || cover.inner.height == height);
    const double by_width = double(width) / image.width, by_height = double(height) / image.height;
    for (bool cover_all : {false, true}) {
      const double scale = cover_all ? std::max(by_width, by_height) : std::min(by_width, by_height);
      const cv::Size inner = cover_all ? cover.inner : pad.inner;
      EXPECT_EQ(std::max(std::floor(scale * image.width + 1e-9), 1.), inner.width);
      EXPECT_EQ(std::max(std::floor(scale * image.height + 1e-9), 1.), inner.height);
    }
  }
}

// One bright pixel of an image, enlarged: its box says where it went, in each mode and on each axis.
TEST(ResizeTest, TestBoxFollowsPixels) {
  const cv::Size image(12, 5);
  for (auto mode : {ResizeParameter_Resize_mode_WARP, ResizeParameter_Resize_mode_FIT_SMALL_SIZE,
                    ResizeParameter_Resize_mode_FIT_LARGE_SIZE_AND_PAD}) {
    for (const cv::Size& wanted : {cv::Size(120, 100), cv::Size(60, 120), cv::Size(240, 100)}) {
      ResizeParameter param = Policy(mode, wanted.height, wanted.width);
      param.add_pad_value(7);
      for (const cv::Point& spot : {cv::Point(0, 0), cv::Point(11, 4), cv::Point(3, 2)}) {
        cv::Mat source(image, CV_8UC3, cv::Scalar::all(20));
        source.at<cv::Vec3b>(spot) = cv::Vec3b(255, 255, 255);
        const cv::Mat resized = ApplyResize(source, param, cv::INTER_NEAREST);
        const Box box = ResizedBox(FrameOf(cv::Rect(spot, cv::Size(1, 1)), image), param, image);
        cv::Mat bright;
        cv::inRange(resized, cv::Scalar::all(255), cv::Scalar::all(255), bright);
        const cv::Rect found = cv::boundingRect(bright);
        EXPECT_NEAR(found.x, box.xmin * resized.cols, 1);
        EXPECT_NEAR(found.y, box.ymin * resized.rows, 1);
        EXPECT_NEAR(found.br().x, box.xmax * resized.cols, 1);
        EXPECT_NEAR(found.br().y, box.ymax * resized.rows, 1);
        const Placement placement = PlacementOf(param, image);
        cv::Mat pad;
        cv::inRange(resized, cv::Scalar::all(7), cv::Scalar::all(7), pad);
        EXPECT_EQ(placement.outer.area() - placement.inner.area(), cv::countNonZero(pad));
      }
    }
  }
}

TEST(ResizeTest, TestInterpolations) {
  const cv::Mat image = RandomImage(21, 34, 3, 8);
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
    cv::resize(image, expected, cv::Size(19, 15), 0, 0, mode);
    ExpectSame(expected, ApplyResize(image, param, mode));
  }
}

TEST(ResizeTest, TestPadModes) {
  const cv::Mat image = RandomImage(10, 20, 3, 9);
  ResizeParameter param = Policy(ResizeParameter_Resize_mode_FIT_LARGE_SIZE_AND_PAD, 20, 20);
  param.set_pad_mode(ResizeParameter_Pad_mode_REPEAT_NEAREST);
  cv::Mat resized = ApplyResize(image, param, cv::INTER_NEAREST);
  ExpectSame(image.row(0), resized.row(0));
  ExpectSame(image.row(9), resized.row(19));
  param.set_pad_mode(ResizeParameter_Pad_mode_MIRRORED);
  resized = ApplyResize(image, param, cv::INTER_NEAREST);
  ExpectSame(image.row(1), resized.row(4));
  ExpectSame(image.row(8), resized.row(15));
  param.set_pad_mode(ResizeParameter_Pad_mode_CONSTANT);
  param.add_pad_value(1);
  param.add_pad_value(2);
  param.add_pad_value(3);
  resized = ApplyResize(image, param, cv::INTER_NEAREST);
  EXPECT_EQ(cv::Vec3b(1, 2, 3), resized.at<cv::Vec3b>(0, 7));
  param.add_pad_value(4);
  EXPECT_DEATH(ApplyResize(image, param, cv::INTER_NEAREST), "4 pad_value");
  EXPECT_DEATH(ApplyResize(image, ResizeParameter(), cv::INTER_NEAREST), "needs height and width");
}

}  // namespace caffe
