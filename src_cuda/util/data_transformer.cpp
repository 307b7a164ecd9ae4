#include "caffe/data_transformer.hpp"

#include <opencv2/imgproc/imgproc.hpp>

#include <algorithm>
#include <string>
#include <vector>

#include "caffe/util/decode_datum.hpp"
#include "caffe/util/io.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/sampler.hpp"

namespace caffe {

template <typename Dtype>
DataTransformer<Dtype>::DataTransformer(const TransformationParameter& param, Phase phase)
    : param_(param), phase_(phase), mean_values_(param.mean_value().begin(), param.mean_value().end()) {
  CHECK(!(param_.force_color() && param_.force_gray())) << "give force_color or force_gray, not both";
  if (param_.has_distort_param()) { CheckDistortion(param_.distort_param(), "distort_param"); }
  if (param_.has_mean_file()) {
    CHECK(mean_values_.empty()) << "give mean_file or mean_value, not both";
    LOG_IF(INFO, Caffe::root_solver()) << "Loading mean file from: " << param_.mean_file();
    BlobProto blob_proto;
    ReadProtoFromBinaryFileOrDie(param_.mean_file().c_str(), &blob_proto);
    Blob<Dtype> mean;
    mean.FromProto(blob_proto);
    mean_shape_ = {mean.channels(), mean.height(), mean.width()};
    data_mean_.assign(mean.cpu_data(), mean.cpu_data() + mean.count());
  }
}

template <typename Dtype>
void DataTransformer<Dtype>::InitRand() {
  rng_ = TransformRng(caffe_rng_rand());
}

template <typename Dtype>
int DataTransformer<Dtype>::WantedChannels() const {
  if (param_.force_gray()) { return 1; }
  const bool colour = param_.force_color() || param_.has_distort_param() || mean_values_.size() == 3 ||
                      (!mean_shape_.empty() && mean_shape_[0] == 3);
  return colour ? 3 : 0;
}

template <typename Dtype>
std::string DataTransformer<Dtype>::Decode(const Datum& datum, int channels, cv::Mat* image) const {
  if (channels == 0) { channels = param_.force_color() ? 3 : param_.force_gray() ? 1 : 0; }
  return DecodeDatum(datum, channels, image);
}

template <typename Dtype>
void DataTransformer<Dtype>::TransformObjects(const cv::Mat& image, const std::vector<BatchSampler>& batch_samplers,
                                              TransformRng* rng, std::vector<ObjectBox>* objects,
                                              std::vector<Dtype>* pixels, std::vector<int>* shape) const {
  const EmitConstraint* constraint = param_.has_emit_constraint() ? &param_.emit_constraint() : nullptr;
  CheckChannels(image.channels());
  Canvas canvas(image);
  if (param_.has_distort_param()) {
    canvas.pixels = ApplyDistortion(image, DrawDistortion(param_.distort_param(), rng));
  }
  if (param_.has_expand_param()) {
    MoveObjects(ExpandCanvas(param_.expand_param(), ExpandFill(image.channels()), rng, &canvas), constraint, objects);
  }
  const std::vector<Box> samples = SampleBoxes(*objects, batch_samplers, rng);
  if (!samples.empty()) {
    const cv::Rect frame = PixelsOf(samples[rng->Index(samples.size())], canvas.size);
    MoveObjects(FrameOf(frame, canvas.size), constraint, objects);
    CropCanvas(frame, &canvas);
  }
  const cv::Mat source = canvas.Paint();

  const cv::Mat resized = ResizeAndNoise(source, rng);
  if (param_.has_resize_param()) {
    for (ObjectBox& object : *objects) { object.box = ResizedBox(object.box, param_.resize_param(), source.size()); }
  }
  const View view = DrawView(resized.size(), rng);
  MoveObjects(FrameOf(view.frame, resized.size()), constraint, objects);
  if (view.mirror) { MirrorObjects(objects); }
  const ResizeParameter& resize = param_.resize_param();
  if (resize.resize_mode() == ResizeParameter_Resize_mode_FIT_SMALL_SIZE && resize.height_scale() > 0 &&
      resize.width_scale() > 0) {
    // Boxes in units of a fixed height and width instead of the result's own.
    const double x = double(view.frame.width) / resize.width_scale();
    const double y = double(view.frame.height) / resize.height_scale();
    for (ObjectBox& object : *objects) {
      const Box& box = object.box;
      object.box = {box.xmin * x, box.ymin * y, box.xmax * x, box.ymax * y};
    }
  }
  // MultiBoxLoss stops at a box without width or height, and works in single precision.
  objects->erase(std::remove_if(objects->begin(), objects->end(),
                                [](const ObjectBox& object) {
                                  return static_cast<float>(object.box.xmax) <= static_cast<float>(object.box.xmin) ||
                                         static_cast<float>(object.box.ymax) <= static_cast<float>(object.box.ymin);
                                }),
                 objects->end());

  *shape = {1, resized.channels(), view.frame.height, view.frame.width};
  pixels->resize(static_cast<size_t>(resized.channels()) * view.frame.area());
  WriteImage(resized, view, pixels->data());
}

template <typename Dtype>
cv::Mat DataTransformer<Dtype>::ResizeAndNoise(const cv::Mat& image, TransformRng* rng) const {
  cv::Mat result = image;
  if (param_.has_resize_param()) {
    result = ApplyResize(result, param_.resize_param(), DrawInterpolation(param_.resize_param(), rng));
  }
  if (param_.has_noise_param()) { result = ApplyNoise(result, param_.noise_param(), rng); }
  return result;
}

template <typename Dtype>
typename DataTransformer<Dtype>::View DataTransformer<Dtype>::DrawView(const cv::Size& image, TransformRng* rng) const {
  const int crop_h = param_.crop_size() ? param_.crop_size() : param_.crop_h();
  const int crop_w = param_.crop_size() ? param_.crop_size() : param_.crop_w();
  View view = {cv::Rect(cv::Point(), image), false};
  if (crop_h > 0 && crop_w > 0) {
    CHECK_GE(image.height, crop_h) << "the crop has a height of " << crop_h << ", the image only " << image.height;
    CHECK_GE(image.width, crop_w) << "the crop has a width of " << crop_w << ", the image only " << image.width;
    const int free_h = image.height - crop_h, free_w = image.width - crop_w;
    const int y = phase_ == TRAIN ? rng->Index(free_h + 1) : free_h / 2;
    const int x = phase_ == TRAIN ? rng->Index(free_w + 1) : free_w / 2;
    view.frame = cv::Rect(x, y, crop_w, crop_h);
  }
  view.mirror = param_.mirror() && rng->Happens(0.5);
  return view;
}

template <typename Dtype>
void DataTransformer<Dtype>::CheckChannels(int channels) const {
  CHECK_GT(channels, 0);
  CHECK(mean_values_.size() <= 1 || static_cast<int>(mean_values_.size()) == channels)
      << "there are " << mean_values_.size() << " mean_value, must be none, one, or one for each of the " << channels
      << " channels";
  CHECK(mean_shape_.empty() || mean_shape_[0] == channels)
      << "mean_file has " << mean_shape_[0] << " channels, must have those of the image: " << channels;
}

template <typename Dtype>
Dtype DataTransformer<Dtype>::MeanValue(int c) const {
  return mean_values_.empty() ? Dtype(0) : mean_values_[mean_values_.size() == 1 ? 0 : c];
}

template <typename Dtype>
cv::Scalar DataTransformer<Dtype>::ExpandFill(int channels) const {
  cv::Scalar fill;
  for (int c = 0; c < std::min(channels, 4); ++c) {
    fill[c] = MeanValue(c);
    if (!data_mean_.empty()) {
      const int area = mean_shape_[1] * mean_shape_[2];
      double sum = 0;
      for (int i = 0; i < area; ++i) { sum += data_mean_[c * area + i]; }
      fill[c] = sum / area;
    }
  }
  return fill;
}

template <typename Dtype>
int DataTransformer<Dtype>::MeanRow(const cv::Size& image, const cv::Rect& frame, int c, int y) const {
  if (data_mean_.empty()) { return -1; }
  const cv::Size mean(mean_shape_[2], mean_shape_[1]);
  const bool of_frame = mean == frame.size();
  CHECK(of_frame || mean == image) << "mean_file has " << mean << " pixels, must have those of the image, " << image
                                   << ", or of its crop, " << frame.size();
  return of_frame ? (c * mean.height + y - frame.y) * mean.width : (c * mean.height + y) * mean.width + frame.x;
}

template <typename Dtype>
template <typename Pixel>
void DataTransformer<Dtype>::Write(const Pixel& pixel, int channels, const cv::Size& image, const View& view,
                                   Dtype* out) const {
  CheckChannels(channels);
  const Dtype scale = param_.scale();
  const cv::Rect& frame = view.frame;
  for (int c = 0; c < channels; ++c) {
    const Dtype mean_value = MeanValue(c);
    for (int y = frame.y; y < frame.y + frame.height; ++y, out += frame.width) {
      const int row = MeanRow(image, frame, c, y);
      if (row >= 0) {
        for (int x = 0; x < frame.width; ++x) { out[x] = (pixel(c, y, frame.x + x) - data_mean_[row + x]) * scale; }
      } else {
        for (int x = 0; x < frame.width; ++x) { out[x] = (pixel(c, y, frame.x + x) - mean_value) * scale; }
      }
      if (view.mirror) { std::reverse(out, out + frame.width); }
    }
  }
}

template <typename Dtype>
void DataTransformer<Dtype>::WriteImage(const cv::Mat& image, const View& view, Dtype* out) const {
  const int channels = image.channels();
  const uchar* data = image.data;
  const size_t step = image.step;
  if (image.depth() == CV_32F) {
    const auto pixel = [=](int c, int y, int x) {
      return Dtype(reinterpret_cast<const float*>(data + y * step)[x * channels + c]);
    };
    return Write(pixel, channels, image.size(), view, out);
  }
  CHECK(image.depth() == CV_8U) << "images must have 8 bits a channel";
  const auto pixel = [=](int c, int y, int x) { return Dtype(data[y * step + x * channels + c]); };
  Write(pixel, channels, image.size(), view, out);
}

template <typename Dtype>
vector<int> DataTransformer<Dtype>::InferBlobShape(int channels, const cv::Size& image) const {
  CheckChannels(channels);
  const cv::Size resized = param_.has_resize_param() ? PlacementOf(param_.resize_param(), image).outer : image;
  const int crop_h = param_.crop_size() ? param_.crop_size() : param_.crop_h();
  const int crop_w = param_.crop_size() ? param_.crop_size() : param_.crop_w();
  CHECK_GE(resized.height, crop_h) << "the crop has a height of " << crop_h << ", the image only " << resized.height;
  CHECK_GE(resized.width, crop_w) << "the crop has a width of " << crop_w << ", the image only " << resized.width;
  const bool crop = crop_h > 0 && crop_w > 0;
  return {1, channels, crop ? crop_h : resized.height, crop ? crop_w : resized.width};
}

// ---- the interface of the other data layers

template <typename Dtype>
void DataTransformer<Dtype>::Transform(const cv::Mat& cv_img, Blob<Dtype>* transformed_blob) {
  const cv::Mat resized = ResizeAndNoise(cv_img, &rng_);
  const View view = DrawView(resized.size(), &rng_);
  CHECK_EQ(transformed_blob->channels(), resized.channels());
  CHECK_EQ(transformed_blob->height(), view.frame.height);
  CHECK_EQ(transformed_blob->width(), view.frame.width);
  WriteImage(resized, view, transformed_blob->mutable_cpu_data());
}

template <typename Dtype>
void DataTransformer<Dtype>::Transform(const Datum& datum, Blob<Dtype>* transformed_blob) {
  if (datum.encoded() || param_.has_resize_param() || param_.has_noise_param()) {
    cv::Mat image;
    const std::string error = Decode(datum, 0, &image);
    CHECK(error.empty()) << error;
    return Transform(image, transformed_blob);
  }
  LOG_IF(ERROR, param_.force_color() || param_.force_gray()) << "force_color and force_gray only for encoded datum";
  const cv::Size size(datum.width(), datum.height());
  const View view = DrawView(size, &rng_);
  CHECK_EQ(transformed_blob->channels(), datum.channels());
  CHECK_EQ(transformed_blob->height(), view.frame.height);
  CHECK_EQ(transformed_blob->width(), view.frame.width);
  const int count = datum.channels() * size.area();
  Dtype* out = transformed_blob->mutable_cpu_data();
  if (!datum.data().empty()) {
    CHECK_EQ(datum.data().size(), count) << "the datum has " << datum.data().size() << " bytes, must have " << count;
    const uint8_t* data = reinterpret_cast<const uint8_t*>(datum.data().data());
    const auto pixel = [=](int c, int y, int x) { return Dtype(data[(c * size.height + y) * size.width + x]); };
    return Write(pixel, datum.channels(), size, view, out);
  }
  CHECK_EQ(datum.float_data_size(), count)
      << "the datum has " << datum.float_data_size() << " values, must have " << count;
  const float* data = datum.float_data().data();
  const auto pixel = [=](int c, int y, int x) { return Dtype(data[(c * size.height + y) * size.width + x]); };
  Write(pixel, datum.channels(), size, view, out);
}

namespace {

// Transforms the images one by one into the items of a blob.
template <typename Dtype, typename Image>
void TransformEach(const vector<Image>& images, DataTransformer<Dtype>* transformer, Blob<Dtype>* blob) {
  Blob<Dtype> item(1, blob->channels(), blob->height(), blob->width());
  for (size_t i = 0; i < images.size(); ++i) {
    item.set_cpu_data(blob->mutable_cpu_data() + blob->offset(i));
    transformer->Transform(images[i], &item);
  }
}

}  // namespace

template <typename Dtype>
void DataTransformer<Dtype>::Transform(const vector<Datum>& datum_vector, Blob<Dtype>* transformed_blob) {
  CHECK_GT(datum_vector.size(), 0) << "datum_vector is empty";
  CHECK_LE(datum_vector.size(), transformed_blob->num())
      << "datum_vector has " << datum_vector.size() << " items, transformed_blob has room for "
      << transformed_blob->num();
  TransformEach(datum_vector, this, transformed_blob);
}

template <typename Dtype>
void DataTransformer<Dtype>::Transform(const vector<cv::Mat>& mat_vector, Blob<Dtype>* transformed_blob) {
  CHECK_GT(mat_vector.size(), 0) << "mat_vector is empty";
  CHECK_EQ(mat_vector.size(), transformed_blob->num())
      << "mat_vector has " << mat_vector.size() << " items, transformed_blob " << transformed_blob->num()
      << "; they must have the same number";
  TransformEach(mat_vector, this, transformed_blob);
}

template <typename Dtype>
void DataTransformer<Dtype>::Transform(Blob<Dtype>* input_blob, Blob<Dtype>* transformed_blob) {
  const int channels = input_blob->channels(), height = input_blob->height(), width = input_blob->width();
  const View view = DrawView(cv::Size(width, height), &rng_);
  if (transformed_blob->count() == 0) {
    transformed_blob->Reshape(input_blob->num(), channels, view.frame.height, view.frame.width);
  }
  CHECK_LE(input_blob->num(), transformed_blob->num());
  CHECK_EQ(channels, transformed_blob->channels());
  CHECK_EQ(view.frame.height, transformed_blob->height());
  CHECK_EQ(view.frame.width, transformed_blob->width());
  for (int n = 0; n < input_blob->num(); ++n) {
    const Dtype* data = input_blob->cpu_data() + input_blob->offset(n);
    const auto pixel = [=](int c, int y, int x) { return data[(c * height + y) * width + x]; };
    Write(pixel, channels, cv::Size(width, height), view,
          transformed_blob->mutable_cpu_data() + transformed_blob->offset(n));
  }
}

template <typename Dtype>
vector<int> DataTransformer<Dtype>::InferBlobShape(const cv::Mat& cv_img) {
  return InferBlobShape(cv_img.channels(), cv_img.size());
}

template <typename Dtype>
vector<int> DataTransformer<Dtype>::InferBlobShape(const Datum& datum) {
  if (!datum.encoded()) { return InferBlobShape(datum.channels(), cv::Size(datum.width(), datum.height())); }
  cv::Mat image;
  const std::string error = Decode(datum, 0, &image);
  CHECK(error.empty()) << error;
  return InferBlobShape(image);
}

template <typename Dtype>
vector<int> DataTransformer<Dtype>::InferBlobShape(const vector<Datum>& datum_vector) {
  CHECK_GT(datum_vector.size(), 0) << "datum_vector is empty";
  vector<int> shape = InferBlobShape(datum_vector[0]);
  shape[0] = datum_vector.size();
  return shape;
}

template <typename Dtype>
vector<int> DataTransformer<Dtype>::InferBlobShape(const vector<cv::Mat>& mat_vector) {
  CHECK_GT(mat_vector.size(), 0) << "mat_vector is empty";
  vector<int> shape = InferBlobShape(mat_vector[0]);
  shape[0] = mat_vector.size();
  return shape;
}

template <typename Dtype>
void DataTransformer<Dtype>::TransformInv(const Blob<Dtype>* blob, vector<cv::Mat>* cv_imgs) {
  const int channels = blob->channels(), height = blob->height(), width = blob->width();
  const cv::Rect frame(0, 0, width, height);
  CheckChannels(channels);
  for (int n = 0; n < blob->num(); ++n) {
    const Dtype* data = blob->cpu_data() + blob->offset(n);
    cv::Mat image(height, width, CV_8UC(channels));
    for (int c = 0; c < channels; ++c) {
      for (int y = 0; y < height; ++y, data += width) {
        const int row = MeanRow(frame.size(), frame, c, y);
        for (int x = 0; x < width; ++x) {
          const Dtype mean = row >= 0 ? data_mean_[row + x] : MeanValue(c);
          image.ptr<uchar>(y)[x * channels + c] = cv::saturate_cast<uchar>(data[x] / param_.scale() + mean);
        }
      }
    }
    if (param_.has_resize_param()) {
      image = ApplyResize(image, param_.resize_param(), DrawInterpolation(param_.resize_param(), &rng_));
    }
    cv_imgs->push_back(image);
  }
}

INSTANTIATE_CLASS(DataTransformer);

}  // namespace caffe
