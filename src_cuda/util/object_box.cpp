#include "caffe/util/object_box.hpp"

#include <algorithm>
#include <vector>

namespace caffe {

namespace {

bool Emitted(const Box& frame, const EmitConstraint& constraint, const Box& box) {
  if (constraint.emit_type() == EmitConstraint_EmitType_MIN_OVERLAP) {
    return Coverage(box, frame) > constraint.emit_overlap();
  }
  const double x = (box.xmin + box.xmax) / 2, y = (box.ymin + box.ymax) / 2;
  return x >= frame.xmin && x <= frame.xmax && y >= frame.ymin && y <= frame.ymax;
}

}  // namespace

void MoveObjects(const Box& frame, const EmitConstraint* constraint, std::vector<ObjectBox>* objects) {
  size_t kept = 0;
  for (ObjectBox& object : *objects) {
    if (constraint != nullptr && !Emitted(frame, *constraint, object.box)) { continue; }
    object.box = Intersection(Relative(frame, object.box), Box());
    if (object.box.Area() > 0) { (*objects)[kept++] = object; }
  }
  objects->resize(kept);
}

void MirrorObjects(std::vector<ObjectBox>* objects) {
  for (ObjectBox& object : *objects) {
    const double xmin = object.box.xmin;
    object.box.xmin = 1 - object.box.xmax;
    object.box.xmax = 1 - xmin;
  }
}

std::vector<ObjectBox> ObjectsOf(const AnnotatedDatum& record) {
  std::vector<ObjectBox> objects;
  for (const AnnotationGroup& group : record.annotation_group()) {
    for (const Annotation& annotation : group.annotation()) {
      const NormalizedBBox& box = annotation.bbox();
      ObjectBox object;
      object.group_label = group.group_label();
      object.instance_id = annotation.instance_id();
      object.difficult = box.difficult();
      object.box = {box.xmin(), box.ymin(), box.xmax(), box.ymax()};
      objects.push_back(object);
    }
  }
  return objects;
}

}  // namespace caffe
