#ifndef CAFFE_UTIL_IM_TRANSFORMS_HPP_
#define CAFFE_UTIL_IM_TRANSFORMS_HPP_

#include <opencv2/core/core.hpp>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "caffe/proto/caffe.pb.h"
#include "caffe/util/object_box.hpp"
#include "caffe/util/transform_rng.hpp"

namespace caffe {

// Images have 8 bits a channel, blue, green, red or grey only, unless another depth is named.

/**
 * @brief An image that lies somewhere on a canvas of one colour.
 *
 * Expanding only places the image on a larger canvas, and cropping only cuts it. The canvas, which has up to
 * max_expand_ratio^2 times the pixels of the image, is not painted before Paint(), when the crop is known.
 */
struct Canvas {
  cv::Mat pixels;   // the visible part of the image; empty when a crop misses it
  cv::Point at;     // where its top left corner lies
  cv::Size size;    // of the canvas
  cv::Scalar fill;  // its colour

  explicit Canvas(const cv::Mat& image) : pixels(image), size(image.size()), type_(image.type()) {}
  // The canvas with the image on it; the image itself where nothing else shows.
  cv::Mat Paint() const;

 private:
  int type_;  // kept for a canvas whose image was cut away
};

// The rectangle `frame`, in pixels of an image of this size, in units of the image.
Box FrameOf(const cv::Rect& frame, const cv::Size& size);

/**
 * @brief The pixels of a box on an image: left = floor(xmin * width), width = floor((xmax - xmin) * width), at
 * least 1.
 */
cv::Rect PixelsOf(const Box& box, const cv::Size& size);

// Cuts the canvas down to a frame on it.
void CropCanvas(const cv::Rect& frame, Canvas* canvas);

/**
 * @brief With probability prob lays the image on a canvas `ratio` times its size, ratio in [1, max_expand_ratio].
 *
 * The canvas has floor(ratio * height) x floor(ratio * width) pixels; the position is uniform among the whole pixels.
 * Returns the canvas's frame in units of the image before (the unit box where nothing happens).
 */
Box ExpandCanvas(const ExpansionParameter& param, const cv::Scalar& fill, TransformRng* rng, Canvas* canvas);

// What a distortion does to one image; a step without a value is skipped.
struct Distortion {
  bool contrast_first = false;              // contrast before saturation and hue, or after them
  std::optional<double> brightness;         // added to every channel
  std::optional<double> contrast;           // every channel is multiplied by it
  std::optional<double> saturation;         // S of HSV (0..255) is multiplied by it
  std::optional<double> hue;                // added to H of HSV (0..179, two degrees a step)
  std::optional<std::array<int, 3>> order;  // channel c of the result is channel order[c]
};

// Stops with one line, which begins with `where`, if a range of the distortion cannot be drawn from.
void CheckDistortion(const DistortionParameter& param, const std::string& where);

/**
 * @brief Draws which steps happen, by their probabilities, and their strengths, uniform in their ranges.
 *
 * Brightness comes first; then contrast, saturation, hue or, as often, saturation, hue, contrast; then the channel
 * order. brightness in [-brightness_delta, brightness_delta], contrast in [contrast_lower, contrast_upper], saturation
 * likewise, hue in [-hue_delta, hue_delta].
 */
Distortion DrawDistortion(const DistortionParameter& param, TransformRng* rng);

/**
 * @brief Applies the steps in turn; each result is rounded to the nearest integer and held in [0, 255].
 *
 * On a grey image only brightness and contrast do something. As in the SSD branch, a changed hue is clipped to [0, 255]
 * before it is converted back from HSV: below 0 it stops at red, above 179 it wraps around.
 */
cv::Mat ApplyDistortion(const cv::Mat& image, const Distortion& distortion);

// Where a resize policy puts an image: scaled to `inner`, at `at` on an output of size `outer`.
struct Placement {
  cv::Size inner;
  cv::Point at;
  cv::Size outer;
};

/**
 * @brief The placement of an image of a given size; stops if height or width of the policy is 0.
 *
 * WARP: inner = outer = (width, height). FIT_LARGE_SIZE_AND_PAD: inner is the largest size of the image's shape that
 * fits (width, height), in the middle. FIT_SMALL_SIZE: inner = outer, the smallest one that covers it. A side that
 * is computed from the other one is rounded down, and is 1 at least.
 */
Placement PlacementOf(const ResizeParameter& param, const cv::Size& image);

// The OpenCV interpolation to use: one of the policy's, each as likely; linear if it names none.
int DrawInterpolation(const ResizeParameter& param, TransformRng* rng);

// The image resized and padded by the policy. pad_value: none (0), one, or one a channel.
cv::Mat ApplyResize(const cv::Mat& image, const ResizeParameter& param, int interpolation);

// Where a box on an image of this size lies on the resized and padded one.
Box ResizedBox(const Box& box, const ResizeParameter& param, const cv::Size& image);

/**
 * @brief The noises of the parameter, in this order: decolorize, gauss_blur (7x7, sigma 1.5), hist_eq and clahe (of the
 * luma), jpeg (its quality), erode (3x3 ellipse), posterize (4 levels), inverse, saltpepper, convert_to_hsv,
 * convert_to_lab (32-bit float). With probability prob; always where prob is not given.
 */
cv::Mat ApplyNoise(const cv::Mat& image, const NoiseParameter& param, TransformRng* rng);

}  // namespace caffe

#endif  // CAFFE_UTIL_IM_TRANSFORMS_HPP_
