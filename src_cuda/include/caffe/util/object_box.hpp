#ifndef CAFFE_UTIL_OBJECT_BOX_HPP_
#define CAFFE_UTIL_OBJECT_BOX_HPP_

#include <algorithm>
#include <cmath>
#include <vector>

#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief A rectangle in units of the image it lies on: (0, 0) is the top left corner, (1, 1) the bottom right one.
 *
 * In double precision, so that a chain of crops and enlargements loses nothing that a float label could show.
 */
struct Box {
  double xmin = 0, ymin = 0, xmax = 1, ymax = 1;

  bool Finite() const {
    return std::isfinite(xmin) && std::isfinite(ymin) && std::isfinite(xmax) && std::isfinite(ymax);
  }
  // 0 where the box is reversed or empty.
  double Area() const { return std::max(xmax - xmin, 0.) * std::max(ymax - ymin, 0.); }
};

// One annotated object: a row of the label blob without its item_id.
struct ObjectBox {
  int group_label = 0;
  int instance_id = 0;
  bool difficult = false;
  Box box;
};

inline Box Intersection(const Box& a, const Box& b) {
  return {std::max(a.xmin, b.xmin), std::max(a.ymin, b.ymin), std::min(a.xmax, b.xmax), std::min(a.ymax, b.ymax)};
}

// Area of the intersection over area of the union; 0 where both are empty.
inline double Jaccard(const Box& a, const Box& b) {
  const double inside = Intersection(a, b).Area();
  return inside > 0 ? inside / (a.Area() + b.Area() - inside) : 0;
}

// The share of `box` that lies on `other`.
inline double Coverage(const Box& box, const Box& other) {
  const double inside = Intersection(box, other).Area();
  return inside > 0 ? inside / box.Area() : 0;
}

// `box`, given in units of the image, in units of `frame` on that image.
inline Box Relative(const Box& frame, const Box& box) {
  const double width = frame.xmax - frame.xmin, height = frame.ymax - frame.ymin;
  return {(box.xmin - frame.xmin) / width, (box.ymin - frame.ymin) / height, (box.xmax - frame.xmin) / width,
          (box.ymax - frame.ymin) / height};
}

/**
 * @brief Converts objects from units of an image to those of a frame on it (a crop, or an enlarged canvas), and drops
 * those outside.
 *
 * Drops an object that misses the emit constraint, if one is given (CENTER: its centre lies on the frame; MIN_OVERLAP:
 * more than emit_overlap of its area does); clips the others to the frame; drops those with no area left.
 */
void MoveObjects(const Box& frame, const EmitConstraint* constraint, std::vector<ObjectBox>* objects);

// Objects of an image mirrored left to right.
void MirrorObjects(std::vector<ObjectBox>* objects);

// The objects of a record, in the order of its groups and annotations.
std::vector<ObjectBox> ObjectsOf(const AnnotatedDatum& record);

}  // namespace caffe

#endif  // CAFFE_UTIL_OBJECT_BOX_HPP_
