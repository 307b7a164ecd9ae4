#include <opencv2/core/core.hpp>
#include <opencv2/imgcodecs/imgcodecs.hpp>
#include <opencv2/imgproc/imgproc.hpp>

#include <google/protobuf/text_format.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/data_transformer.hpp"
#include "caffe/util/io.hpp"
#include "caffe/util/sampler.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

template <typename Dtype>
class TransformObjectsTest : public ::testing::Test {
 protected:
  struct Result {
    vector<Dtype> pixels;
    vector<int> shape;
    vector<ObjectBox> objects;
    Dtype At(int c, int y, int x) const { return pixels[(c * shape[2] + y) * shape[3] + x]; }
  };

  static Result Run(const TransformationParameter& param, Phase phase, const cv::Mat& image, uint64_t seed,
                    const vector<ObjectBox>& objects = {}, const vector<BatchSampler>& samplers = {}) {
    const DataTransformer<Dtype> transformer(param, phase);
    TransformRng rng(seed);
    Result result;
    result.objects = objects;
    transformer.TransformObjects(image, samplers, &rng, &result.objects, &result.pixels, &result.shape);
    return result;
  }

  static cv::Mat RandomImage(int height, int width, int channels, uint64_t seed) {
    TransformRng rng(seed, 5);
    cv::Mat image(height, width, CV_8UC(channels));
    for (int i = 0; i < height * width * channels; ++i) { image.data[i] = static_cast<uchar>(rng.Index(256)); }
    return image;
  }

  static TransformationParameter Param(const std::string& text) {
    TransformationParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString(text, &param));
    return param;
  }
};

TYPED_TEST_CASE(TransformObjectsTest, TestDtypes);

TYPED_TEST(TransformObjectsTest, TestMeanScaleMirror) {
  const cv::Mat image = this->RandomImage(7, 11, 3, 1);
  const TransformationParameter param =
      this->Param("mean_value: 104 mean_value: 117.5 mean_value: 123 scale: 0.017 mirror: true");
  const float means[] = {104, 117.5, 123};
  int mirrored = 0;
  for (int seed = 0; seed < 200; ++seed) {
    vector<ObjectBox> objects(1);
    objects[0].box = {0.1, 0.2, 0.3, 0.5};
    const auto result = this->Run(param, TRAIN, image, seed, objects);
    ASSERT_EQ(vector<int>({1, 3, 7, 11}), result.shape);
    ASSERT_EQ(1, result.objects.size());
    const bool mirror = result.objects[0].box.xmin > 0.5;
    EXPECT_NEAR(mirror ? 0.7 : 0.1, result.objects[0].box.xmin, 1e-9);
    EXPECT_NEAR(mirror ? 0.9 : 0.3, result.objects[0].box.xmax, 1e-9);
    EXPECT_NEAR(0.2, result.objects[0].box.ymin, 1e-9);
    mirrored += mirror;
    for (int y = 0; y < 7; ++y) {
      for (int x = 0; x < 11; ++x) {
        for (int c = 0; c < 3; ++c) {
          const TypeParam value = image.at<cv::Vec3b>(y, mirror ? 10 - x : x)[c];
          ASSERT_EQ((value - TypeParam(means[c])) * TypeParam(0.017f), result.At(c, y, x));
        }
      }
    }
  }
  EXPECT_NEAR(100, mirrored, 30);
}

// TRAIN crops anywhere, TEST in the middle; the object goes with the crop.
TYPED_TEST(TransformObjectsTest, TestCrop) {
  const cv::Mat image = this->RandomImage(9, 14, 3, 2);
  vector<ObjectBox> objects(1);
  objects[0].box = {3 / 14., 2 / 9., 11 / 14., 8 / 9.};
  for (const std::string crop : {"crop_size: 6", "crop_h: 6 crop_w: 10"}) {
    const TransformationParameter param = this->Param(crop);
    std::set<std::pair<int, int>> places;
    for (int seed = 0; seed < 400; ++seed) {
      for (Phase phase : {TRAIN, TEST}) {
        const auto result = this->Run(param, phase, image, seed, objects);
        const int width = crop == "crop_size: 6" ? 6 : 10;
        ASSERT_EQ(vector<int>({1, 3, 6, width}), result.shape);
        int found = 0, top = 0, left = 0;
        for (int y = 0; y + 6 <= 9; ++y) {
          for (int x = 0; x + width <= 14; ++x) {
            bool same = true;
            for (int i = 0; i < 6 * width && same; ++i) {
              same = image.at<cv::Vec3b>(y + i / width, x + i % width)[1] == result.At(1, i / width, i % width);
            }
            if (same) { ++found, top = y, left = x; }
          }
        }
        ASSERT_EQ(1, found);
        if (phase == TEST) {
          EXPECT_EQ((9 - 6) / 2, top);
          EXPECT_EQ((14 - width) / 2, left);
        } else {
          places.insert({top, left});
        }
        const Box& box = result.objects[0].box;
        EXPECT_NEAR(std::max(3. - left, 0.) / width, box.xmin, 1e-9);
        EXPECT_NEAR(std::min(11. - left, double(width)) / width, box.xmax, 1e-9);
        EXPECT_NEAR(std::max(2. - top, 0.) / 6, box.ymin, 1e-9);
        EXPECT_NEAR(std::min(8. - top, 6.) / 6, box.ymax, 1e-9);
      }
    }
    EXPECT_EQ(crop == "crop_size: 6" ? 4 * 9 : 4 * 5, places.size());
  }
}

// The whole chain: the box of an object is where its pixels are in the result.
TYPED_TEST(TransformObjectsTest, TestBoxFollowsPixels) {
  vector<BatchSampler> samplers(3);
  samplers[0].set_max_sample(1);
  samplers[0].set_max_trials(1);
  for (int i : {1, 2}) {
    samplers[i].mutable_sampler()->set_min_scale(0.3);
    samplers[i].mutable_sampler()->set_min_aspect_ratio(0.5);
    samplers[i].mutable_sampler()->set_max_aspect_ratio(2);
    samplers[i].mutable_sample_constraint()->set_min_object_coverage(i == 1 ? 0.2 : 0.7);
    samplers[i].set_max_sample(1);
  }
  int seen = 0, cut = 0;
  for (const std::string mode : {"WARP", "FIT_SMALL_SIZE", "FIT_LARGE_SIZE_AND_PAD"}) {
    const TransformationParameter param =
        this->Param("mirror: true resize_param { resize_mode: " + mode +
                    " height: 150 width: 190 interp_mode: NEAREST pad_value: 3 }"
                    " expand_param { prob: 0.5 max_expand_ratio: 3 } emit_constraint { emit_type: CENTER }"
                    " mean_value: 90 crop_h: 140 crop_w: 180 noise_param { inverse: true }");
    for (int seed = 0; seed < 300; ++seed) {
      TransformRng rng(seed, 1);
      cv::Mat image(40 + rng.Index(200), 40 + rng.Index(200), CV_8UC3, cv::Scalar::all(20));
      const cv::Rect place(rng.Index(image.cols - 20), rng.Index(image.rows - 20), 10 + rng.Index(10),
                           10 + rng.Index(10));
      image(place).setTo(cv::Scalar::all(250));
      vector<ObjectBox> objects(1);
      objects[0].box = FrameOf(place, image.size());
      const auto result = this->Run(param, TRAIN, image, seed, objects, samplers);
      ASSERT_EQ(vector<int>({1, 3, 140, 180}), result.shape);
      cv::Mat bright(140, 180, CV_8U);
      for (int i = 0; i < 140 * 180; ++i) {
        const TypeParam value = result.pixels[i] + 90;
        // Image, object, canvas, padding: nothing else there; the noise inverted them.
        ASSERT_TRUE(value == 235 || value == 5 || value == 165 || value == 252) << value;
        bright.data[i] = value == 5;
      }
      if (result.objects.empty()) {
        ++cut;
        continue;
      }
      ++seen;
      const cv::Rect found = cv::boundingRect(bright);
      const Box& box = result.objects[0].box;
      EXPECT_NEAR(found.x, box.xmin * 180, 1.01);
      EXPECT_NEAR(found.y, box.ymin * 140, 1.01);
      EXPECT_NEAR(found.br().x, box.xmax * 180, 1.01);
      EXPECT_NEAR(found.br().y, box.ymax * 140, 1.01);
    }
  }
  EXPECT_GT(seen, 500);
  EXPECT_GT(cut, 0);
}

// The first steps are done in their order: distort, expand, crop to a sampled box.
TYPED_TEST(TransformObjectsTest, TestSequence) {
  const TransformationParameter param = this->Param(
      "distort_param { brightness_prob: 0.5 brightness_delta: 32 contrast_prob: 0.5 contrast_lower: 0.5 "
      "contrast_upper: 1.5 hue_prob: 0.5 hue_delta: 18 saturation_prob: 0.5 saturation_lower: 0.5 "
      "saturation_upper: 1.5 random_order_prob: 0.3 } expand_param { prob: 0.5 max_expand_ratio: 2 } mean_value: 100");
  vector<BatchSampler> samplers(1);
  samplers[0].mutable_sampler()->set_min_scale(0.4);
  const cv::Mat image = this->RandomImage(30, 44, 3, 3);
  for (int seed = 0; seed < 100; ++seed) {
    const auto result = this->Run(param, TRAIN, image, seed, {}, samplers);
    TransformRng rng(seed);
    Canvas canvas(ApplyDistortion(image, DrawDistortion(param.distort_param(), &rng)));
    ExpandCanvas(param.expand_param(), cv::Scalar::all(100), &rng, &canvas);
    const vector<Box> boxes = SampleBoxes({}, samplers, &rng);
    const cv::Mat expected = canvas.Paint()(PixelsOf(boxes[rng.Index(boxes.size())], canvas.size));
    ASSERT_EQ(vector<int>({1, 3, expected.rows, expected.cols}), result.shape);
    for (int i = 0; i < 3 * expected.rows * expected.cols; ++i) {
      const int c = i % 3, y = i / 3 / expected.cols, x = i / 3 % expected.cols;
      ASSERT_EQ(expected.at<cv::Vec3b>(y, x)[c] - 100, result.At(c, y, x));
    }
  }
}

// height_scale and width_scale: boxes in units of a fixed size.
TYPED_TEST(TransformObjectsTest, TestFixedScale) {
  const TransformationParameter param =
      this->Param("resize_param { resize_mode: FIT_SMALL_SIZE height: 30 width: 30 height_scale: 30 width_scale: 20 }");
  vector<ObjectBox> objects(1);
  objects[0].box = {0.25, 0.25, 0.5, 0.5};
  const auto result = this->Run(param, TEST, this->RandomImage(10, 20, 3, 4), 0, objects);
  ASSERT_EQ(vector<int>({1, 3, 30, 60}), result.shape);
  EXPECT_NEAR(0.25 * 60 / 20, result.objects[0].box.xmin, 1e-9);
  EXPECT_NEAR(0.5, result.objects[0].box.ymax, 1e-9);
}

// Boxes outside the image are clipped or dropped, and those whose width or height is 0 in a float are dropped.
TYPED_TEST(TransformObjectsTest, TestBoxesWithoutArea) {
  vector<ObjectBox> objects(5);
  objects[0].box = {-0.5, -0.5, 0.5, 0.5};
  objects[1].box = {1.1, 0, 1.2, 1};
  objects[2].box = {0.6, 0.6, 0.4, 0.8};
  objects[3].box = {0.5, 0.5, 0.5, 0.8};
  objects[4].box = {0.9, 0.5, 0.9 + 1e-9, 0.8};
  const auto result = this->Run(this->Param(""), TEST, this->RandomImage(5, 5, 3, 4), 0, objects);
  ASSERT_EQ(1, result.objects.size());
  EXPECT_EQ(0, result.objects[0].box.xmin);
  EXPECT_EQ(0.5, result.objects[0].box.ymax);
}

TYPED_TEST(TransformObjectsTest, TestMeanFile) {
  std::string file;
  MakeTempFilename(&file);
  BlobProto mean;
  for (int i = 0; i < 72; ++i) { mean.add_data(i / 2.f); }
  mean.set_num(1);
  mean.set_channels(3);
  mean.set_height(4);
  mean.set_width(6);
  WriteProtoToBinaryFile(mean, file.c_str());
  // The mean of a whole image under a crop, and the mean of a crop; mirrored with the image in both cases.
  for (int height : {4, 7}) {
    const int width = height + 2, crop_h = height == 4 ? 3 : 4, crop_w = height == 4 ? 5 : 6;
    const TransformationParameter param =
        this->Param("mirror: true mean_file: \"" + file + "\" crop_h: " + std::to_string(crop_h) +
                    " crop_w: " + std::to_string(crop_w));
    const cv::Mat image = this->RandomImage(height, width, 3, 6);
    const int top = (height - crop_h) / 2, left = (width - crop_w) / 2;
    for (int seed = 0; seed < 8; ++seed) {
      vector<ObjectBox> objects(1);
      objects[0].box = {0, 0, 0.4, 1};
      const auto result = this->Run(param, TEST, image, seed, objects);
      const bool mirror = result.objects[0].box.xmax > 0.9;
      for (int i = 0; i < 3 * crop_h * crop_w; ++i) {
        const int c = i / (crop_h * crop_w), y = i / crop_w % crop_h;
        const int x = mirror ? crop_w - 1 - i % crop_w : i % crop_w;
        const int mean_index = height == 4 ? (c * 4 + y + top) * 6 + x + left : (c * 4 + y) * 6 + x;
        EXPECT_EQ(image.at<cv::Vec3b>(y + top, x + left)[c] - mean_index / TypeParam(2), result.pixels[i]);
      }
    }
  }
  const std::string text = "mean_file: \"" + file + "\"";
  EXPECT_DEATH(this->Run(this->Param(text), TEST, this->RandomImage(5, 5, 3, 4), 0), "mean_file has \\[6 x 4\\]");
}

TYPED_TEST(TransformObjectsTest, TestDecode) {
  const DataTransformer<TypeParam> transformer(TransformationParameter(), TEST);
  const cv::Mat image = this->RandomImage(6, 9, 3, 7);
  cv::Mat decoded;
  Datum datum;
  vector<uchar> code;
  cv::imencode(".png", image, code);
  datum.set_encoded(true);
  datum.set_data(std::string(code.begin(), code.end()));
  EXPECT_EQ("", transformer.Decode(datum, 0, &decoded));
  EXPECT_EQ(0, cv::norm(image, decoded, cv::NORM_INF));
  EXPECT_EQ("", transformer.Decode(datum, 1, &decoded));
  EXPECT_EQ(1, decoded.channels());
  datum.set_data(datum.data().substr(0, 20));
  EXPECT_NE("", transformer.Decode(datum, 0, &decoded));
  cv::imencode(".jpg", image, code);
  datum.set_data(std::string(code.begin(), code.end()));
  EXPECT_EQ("", transformer.Decode(datum, 0, &decoded));
  datum.set_data(datum.data().substr(0, code.size() - 40));
  EXPECT_EQ("its JPEG is cut short", transformer.Decode(datum, 0, &decoded));
  datum.clear_data();
  EXPECT_EQ("its datum holds no image", transformer.Decode(datum, 0, &decoded));
  datum.Clear();
  datum.set_channels(3);
  datum.set_height(6);
  datum.set_width(9);
  std::string planar;
  for (int i = 0; i < 3 * 6 * 9; ++i) { planar += static_cast<char>(image.at<cv::Vec3b>(i / 9 % 6, i % 9)[i / 54]); }
  datum.set_data(planar);
  EXPECT_EQ("", transformer.Decode(datum, 0, &decoded));
  EXPECT_EQ(0, cv::norm(image, decoded, cv::NORM_INF));
  datum.set_data(planar + "x");
  EXPECT_EQ("its datum holds 163 bytes for 3 x 6 x 9 pixels", transformer.Decode(datum, 0, &decoded));
  datum.set_height(-6);
  EXPECT_NE("", transformer.Decode(datum, 0, &decoded));
}

// The interface of the other data layers, against the pixels.
TYPED_TEST(TransformObjectsTest, TestOtherLayers) {
  const cv::Mat image = this->RandomImage(6, 8, 3, 8);
  DataTransformer<TypeParam> transformer(this->Param("mean_value: 9 scale: 2 crop_size: 4"), TEST);
  transformer.InitRand();
  Datum bytes, floats;
  for (Datum* datum : {&bytes, &floats}) {
    datum->set_channels(3);
    datum->set_height(6);
    datum->set_width(8);
  }
  std::string planar;
  Blob<TypeParam> input(1, 3, 6, 8);
  for (int i = 0; i < 3 * 6 * 8; ++i) {
    const uchar value = image.at<cv::Vec3b>(i / 8 % 6, i % 8)[i / 48];
    planar += static_cast<char>(value);
    floats.add_float_data(value);
    input.mutable_cpu_data()[i] = value;
  }
  bytes.set_data(planar);
  const auto check = [&image](const Blob<TypeParam>& blob) {
    for (int i = 0; i < 3 * 4 * 4; ++i) {
      const TypeParam value = image.at<cv::Vec3b>(i / 4 % 4 + 1, i % 4 + 2)[i / 16];
      ASSERT_EQ((value - 9) * 2, blob.cpu_data()[i]);
    }
  };
  EXPECT_EQ(vector<int>({1, 3, 4, 4}), transformer.InferBlobShape(bytes));
  EXPECT_EQ(vector<int>({1, 3, 4, 4}), transformer.InferBlobShape(image));
  for (int way = 0; way < 4; ++way) {
    Blob<TypeParam> blob(1, 3, 4, 4);
    if (way == 0) { transformer.Transform(bytes, &blob); }
    if (way == 1) { transformer.Transform(floats, &blob); }
    if (way == 2) { transformer.Transform(image, &blob); }
    if (way == 3) { transformer.Transform(&input, &blob); }
    check(blob);
  }
  EXPECT_EQ(image.at<cv::Vec3b>(0, 0)[0], input.cpu_data()[0]);
  Blob<TypeParam> two(2, 3, 4, 4);
  transformer.Transform(vector<cv::Mat>{image, image}, &two);
  check(two);
  Blob<TypeParam> wrong(1, 3, 5, 4);
  EXPECT_DEATH(transformer.Transform(image, &wrong), "Check failed");
  vector<cv::Mat> back;
  Blob<TypeParam> whole(1, 3, 6, 8);
  DataTransformer<TypeParam> plain(this->Param("mean_value: 9 scale: 2"), TEST);
  plain.Transform(image, &whole);
  plain.TransformInv(&whole, &back);
  EXPECT_EQ(0, cv::norm(image, back[0], cv::NORM_INF));
}

}  // namespace caffe
