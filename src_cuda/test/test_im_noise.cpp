// The noises of im_noise.
#include <opencv2/core/core.hpp>

#include <string>
#include <vector>

#include "caffe/util/im_transforms.hpp"
#include "gtest/gtest.h"
#include "random_image.hpp"

namespace caffe {

TEST(NoiseTest, TestPointwise) {
  const cv::Mat image = RandomImage(16, 12, 3, 10);
  TransformRng rng(0);
  NoiseParameter inverse, posterize, decolorize;
  inverse.set_inverse(true);
  posterize.set_posterize(true);
  decolorize.set_decolorize(true);
  ExpectSame(EachValue(image, [](uchar v) { return static_cast<uchar>(255 - v); }), ApplyNoise(image, inverse, &rng));
  ExpectSame(EachValue(image,
                       [](uchar v) {
                         return static_cast<uchar>(v < 64 ? 32 : v < 128 ? 96 : v < 192 ? 160 : 224);
                       }),
             ApplyNoise(image, posterize, &rng));
  const cv::Mat grey = ApplyNoise(image, decolorize, &rng);
  for (int i = 0; i < 16 * 12; ++i) {
    const uchar* p = image.data + 3 * i;
    EXPECT_NEAR(0.114 * p[0] + 0.587 * p[1] + 0.299 * p[2], grey.data[3 * i], 1);
    EXPECT_EQ(grey.data[3 * i], grey.data[3 * i + 2]);
  }
}

TEST(NoiseTest, TestSaltPepper) {
  const cv::Mat image(40, 50, CV_8UC3, cv::Scalar::all(100));
  NoiseParameter param;
  param.set_saltpepper(true);
  param.mutable_saltpepper_param()->set_fraction(0.1);
  for (int value : {9, 8, 7}) { param.mutable_saltpepper_param()->add_value(value); }
  TransformRng rng(4);
  const cv::Mat noisy = ApplyNoise(image, param, &rng);
  int changed = 0;
  for (int i = 0; i < 2000; ++i) {
    const cv::Vec3b pixel = noisy.at<cv::Vec3b>(i / 50, i % 50);
    EXPECT_TRUE(pixel == cv::Vec3b(9, 8, 7) || pixel == cv::Vec3b(100, 100, 100));
    changed += pixel[0] == 9;
  }
  EXPECT_GT(changed, 170);  // 200 places, some of them drawn twice
  EXPECT_LE(changed, 200);
  ExpectSame(cv::Mat(40, 50, CV_8UC3, cv::Scalar::all(100)), image);
}

// Each of the others changes the image and keeps its size, in colour and in grey.
TEST(NoiseTest, TestOthersRun) {
  const std::vector<std::string> fields = {"hist_eq", "gauss_blur", "erode", "clahe"};
  for (int channels : {1, 3}) {
    cv::Mat image = RandomImage(32, 24, channels, 12);
    for (const std::string& field : fields) {
      NoiseParameter param;
      param.GetReflection()->SetBool(&param, param.GetDescriptor()->FindFieldByName(field), true);
      TransformRng rng(0);
      const cv::Mat noisy = ApplyNoise(image, param, &rng);
      ASSERT_EQ(image.size(), noisy.size());
      ASSERT_EQ(image.type(), noisy.type());
      EXPECT_GT(cv::norm(image, noisy, cv::NORM_INF), 0) << field;
      param.set_prob(0);
      EXPECT_EQ(image.data, ApplyNoise(image, param, &rng).data) << field;
    }
    NoiseParameter jpeg;
    jpeg.set_jpeg(30);
    TransformRng rng(0);
    EXPECT_EQ(image.type(), ApplyNoise(image, jpeg, &rng).type());
  }
  NoiseParameter lab;
  lab.set_convert_to_lab(true);
  TransformRng rng(0);
  const cv::Mat white = ApplyNoise(cv::Mat(2, 2, CV_8UC3, cv::Scalar::all(255)), lab, &rng);
  EXPECT_NEAR(100, white.at<cv::Vec3f>(0, 0)[0], 0.1);
  EXPECT_NEAR(0, white.at<cv::Vec3f>(0, 0)[1], 0.1);
}

}  // namespace caffe
