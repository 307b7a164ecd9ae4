#ifndef CAFFE_UTIL_BOX_MATCHING_HPP_
#define CAFFE_UTIL_BOX_MATCHING_HPP_

#include <algorithm>
#include <vector>

/**
 * Boxes as plain numbers, their matching with objects, and the mining of negatives.
 *
 * Source: Liu et al., SSD (2016), section 2.2.
 */
namespace caffe {

struct PlainBox {
  float xmin, ymin, xmax, ymax;
  float size;  // 0 for a box that ends before it begins
};

/// The box whose corners lie at `at`.
template <typename T>
PlainBox PlainOf(const T* at) {
  PlainBox box = {static_cast<float>(at[0]), static_cast<float>(at[1]), static_cast<float>(at[2]),
                  static_cast<float>(at[3]), 0};
  if (box.xmax >= box.xmin && box.ymax >= box.ymin) { box.size = (box.xmax - box.xmin) * (box.ymax - box.ymin); }
  return box;
}

/// Intersection over union.
inline float Overlap(const PlainBox& a, const PlainBox& b) {
  const float width = std::min(a.xmax, b.xmax) - std::max(a.xmin, b.xmin);
  const float height = std::min(a.ymax, b.ymax) - std::max(a.ymin, b.ymin);
  if (!(width > 0 && height > 0)) { return 0; }
  const float both = width * height;
  return both / (a.size + b.size - both);
}

/// Whether an edge is inside the image.
inline bool InsideImage(const float x) { return x >= 0 && x <= 1; }

/// For each prior box: the index of the object that it is matched with (-1: none, -2: the box is skipped), and its
/// largest overlap with an object.
struct Matching {
  std::vector<int> indices;
  std::vector<float> overlaps;
};

/// Matches each object with the box that it overlaps most; a box is matched once. per_prediction: each remaining box is
/// matched with the object that it overlaps most, if the overlap is `threshold` or more. ignore_crossing: boxes that
/// reach past the image are skipped.
Matching MatchBoxes(const std::vector<PlainBox>& priors, const std::vector<PlainBox>& objects, bool per_prediction,
                    float threshold, bool ignore_crossing);

/// The negatives to train on, in the order of their indices: of the unmatched boxes whose overlap is below most_overlap
/// those with the largest confidence loss, `ratio` times as many as there are matches.
template <typename Dtype>
std::vector<int> MineNegatives(const Matching& match, const Dtype* scores, int classes, int background, bool softmax,
                               float ratio, float most_overlap);

}  // namespace caffe

#endif  // CAFFE_UTIL_BOX_MATCHING_HPP_
