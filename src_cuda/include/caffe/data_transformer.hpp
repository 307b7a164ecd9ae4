#ifndef CAFFE_DATA_TRANSFORMER_HPP
#define CAFFE_DATA_TRANSFORMER_HPP

#include <opencv2/core/core.hpp>

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/im_transforms.hpp"
#include "caffe/util/object_box.hpp"
#include "caffe/util/transform_rng.hpp"

namespace caffe {

/**
 * @brief Applies a layer's transform_param to images and to the objects on them.
 *
 * The whole chain, in its order (AnnotatedData runs all of it; the other data layers, which know no objects, begin at
 * the resize):
 *   1. distort_param, expand_param, then a crop to one of the boxes that the batch samplers find;
 *   2. resize_param, noise_param;
 *   3. crop_size (or crop_h and crop_w): at a random position in TRAIN, in the middle in TEST;
 *   4. mirror, with probability 1/2;
 *   5. (pixel - mean) * scale; mean_value: none, one, or one a channel; mean_file: of the size after step 2 or step 3.
 *      The mean image is subtracted before the mirror.
 * After each step that moves pixels the objects are moved with them, and emit_constraint decides which stay.
 */
template <typename Dtype>
class DataTransformer {
 public:
  explicit DataTransformer(const TransformationParameter& param, Phase phase);
  virtual ~DataTransformer() {}

  // Seeds the random numbers of the Transform() functions from Caffe's.
  void InitRand();

  /**
   * @brief The image of a datum. Safe to call from several threads.
   *
   * @param channels
   *    1 or 3 to have encoded images decoded to grey or colour; 0 to follow force_color and force_gray, or else to
   *    keep the image's own channels. See DecodeDatum.
   * @return an empty string, or what is wrong with the datum.
   */
  std::string Decode(const Datum& datum, int channels, cv::Mat* image) const;

  // The number of channels that transform_param asks for: 1, 3, or 0 where it leaves the choice to the image.
  int WantedChannels() const;

  /**
   * @brief The whole chain for an image with objects. Safe to call from several threads.
   *
   * @param objects
   *    In units of the image; in the end, in units of the result, those without an area in single precision dropped.
   * @param pixels
   *    The result, in the order of a blob; resized to what `shape` says.
   * @param shape
   *    (1, channels, height, width) of the result.
   */
  void TransformObjects(const cv::Mat& image, const std::vector<BatchSampler>& batch_samplers, TransformRng* rng,
                        std::vector<ObjectBox>* objects, std::vector<Dtype>* pixels, std::vector<int>* shape) const;

  // The shape of the result for an image of this size.
  vector<int> InferBlobShape(int channels, const cv::Size& image) const;

  // The interface of Caffe's other data layers. The blob has the shape that InferBlobShape gives.
  void Transform(const Datum& datum, Blob<Dtype>* transformed_blob);
  void Transform(const vector<Datum>& datum_vector, Blob<Dtype>* transformed_blob);
  void Transform(const vector<cv::Mat>& mat_vector, Blob<Dtype>* transformed_blob);
  void Transform(const cv::Mat& cv_img, Blob<Dtype>* transformed_blob);
  // Crop, mirror, mean and scale for images that are in a blob already, with the same random values for all of them.
  void Transform(Blob<Dtype>* input_blob, Blob<Dtype>* transformed_blob);
  vector<int> InferBlobShape(const Datum& datum);
  vector<int> InferBlobShape(const vector<Datum>& datum_vector);
  vector<int> InferBlobShape(const vector<cv::Mat>& mat_vector);
  vector<int> InferBlobShape(const cv::Mat& cv_img);
  // From blobs back to images: pixel / scale + mean, then resize_param.
  void TransformInv(const Blob<Dtype>* blob, vector<cv::Mat>* cv_imgs);

 protected:
  // A rectangle of an image, mirrored or not.
  struct View {
    cv::Rect frame;
    bool mirror;
  };
  View DrawView(const cv::Size& image, TransformRng* rng) const;
  cv::Mat ResizeAndNoise(const cv::Mat& image, TransformRng* rng) const;
  // The mean of a channel where no mean_file is given.
  Dtype MeanValue(int c) const;
  // Offset into the mean image of row y of channel c (y counted in the image), or -1 without mean_file.
  int MeanRow(const cv::Size& image, const cv::Rect& frame, int c, int y) const;
  // pixel(c, y, x) for the pixels of the view's frame -> out, in a blob's order.
  template <typename Pixel>
  void Write(const Pixel& pixel, int channels, const cv::Size& image, const View& view, Dtype* out) const;
  void WriteImage(const cv::Mat& image, const View& view, Dtype* out) const;
  void CheckChannels(int channels) const;
  cv::Scalar ExpandFill(int channels) const;

  TransformationParameter param_;
  Phase phase_;
  TransformRng rng_;
  vector<int> mean_shape_;  // (channels, height, width) of mean_file
  vector<Dtype> data_mean_;
  vector<Dtype> mean_values_;
};

}  // namespace caffe

#endif  // CAFFE_DATA_TRANSFORMER_HPP_
