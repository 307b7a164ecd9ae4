#include <cmath>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/util/object_box.hpp"
#include "caffe/util/sampler.hpp"
#include "caffe/util/transform_rng.hpp"

namespace caffe {

namespace {

Box RandomBox(TransformRng* rng) {
  const double x = rng->Uniform(0, 1), y = rng->Uniform(0, 1);
  return {x, y, rng->Uniform(x, 1), rng->Uniform(y, 1)};
}

std::vector<ObjectBox> RandomObjects(int count, TransformRng* rng) {
  std::vector<ObjectBox> objects(count);
  for (int i = 0; i < count; ++i) {
    objects[i].group_label = 1 + rng->Index(5);
    objects[i].instance_id = i;
    objects[i].difficult = rng->Happens(0.3);
    objects[i].box = RandomBox(rng);
  }
  return objects;
}

// The share of a 500 x 500 grid of the unit square on which `inside` holds.
template <typename Inside>
double Share(const Inside& inside) {
  int count = 0;
  for (int i = 0; i < 500; ++i) {
    for (int j = 0; j < 500; ++j) { count += inside((i + 0.5) / 500, (j + 0.5) / 500); }
  }
  return count / 250000.;
}

bool On(const Box& box, double x, double y) { return x > box.xmin && x < box.xmax && y > box.ymin && y < box.ymax; }

}  // namespace

TEST(ObjectBoxTest, TestOverlaps) {
  TransformRng rng(1);
  for (int i = 0; i < 40; ++i) {
    const Box a = RandomBox(&rng), b = RandomBox(&rng);
    const double both = Share([&](double x, double y) { return On(a, x, y) && On(b, x, y); });
    const double any = Share([&](double x, double y) { return On(a, x, y) || On(b, x, y); });
    const double first = Share([&](double x, double y) { return On(a, x, y); });
    EXPECT_NEAR(first, a.Area(), 0.005);
    EXPECT_NEAR(both, Jaccard(a, b) * any, 0.005);
    EXPECT_NEAR(both, Coverage(a, b) * first, 0.005);
    EXPECT_EQ(Jaccard(a, b), Jaccard(b, a));
    EXPECT_EQ(1, Jaccard(a, a));
  }
  EXPECT_EQ(0, Jaccard({0, 0, 0.1, 0.1}, {0.2, 0.2, 0.3, 0.3}));
  EXPECT_EQ(0, Jaccard({0.5, 0.5, 0.5, 0.5}, {0.5, 0.5, 0.5, 0.5}));
  EXPECT_EQ(0, Coverage({0.5, 0.5, 0.4, 0.6}, Box()));
}

// MoveObjects keeps the position of points of the image: those on an object before are on it after.
TEST(ObjectBoxTest, TestMove) {
  int dropped = 0;
  for (int seed = 0; seed < 500; ++seed) {
    TransformRng rng(seed);
    const std::vector<ObjectBox> before = RandomObjects(6, &rng);
    Box frame = RandomBox(&rng);
    if (seed % 2) { frame = {-rng.Uniform(0, 2), -rng.Uniform(0, 2), 1 + rng.Uniform(0, 2), 1 + rng.Uniform(0, 2)}; }
    std::vector<ObjectBox> after = before;
    MoveObjects(frame, nullptr, &after);
    size_t next = 0;
    for (const ObjectBox& object : before) {
      const bool kept = next < after.size() && after[next].instance_id == object.instance_id;
      EXPECT_EQ(Intersection(frame, object.box).Area() > 0, kept);
      if (!kept) {
        ++dropped;
        continue;
      }
      const ObjectBox& moved = after[next++];
      EXPECT_EQ(object.group_label, moved.group_label);
      EXPECT_EQ(object.difficult, moved.difficult);
      const double width = frame.xmax - frame.xmin, height = frame.ymax - frame.ymin;
      EXPECT_NEAR(std::max(object.box.xmin, frame.xmin), frame.xmin + moved.box.xmin * width, 1e-12);
      EXPECT_NEAR(std::max(object.box.ymin, frame.ymin), frame.ymin + moved.box.ymin * height, 1e-12);
      EXPECT_NEAR(std::min(object.box.xmax, frame.xmax), frame.xmin + moved.box.xmax * width, 1e-12);
      EXPECT_NEAR(std::min(object.box.ymax, frame.ymax), frame.ymin + moved.box.ymax * height, 1e-12);
    }
    EXPECT_EQ(after.size(), next);
  }
  EXPECT_GT(dropped, 100);
}

TEST(ObjectBoxTest, TestEmitConstraint) {
  EmitConstraint center, overlap;
  center.set_emit_type(EmitConstraint_EmitType_CENTER);
  overlap.set_emit_type(EmitConstraint_EmitType_MIN_OVERLAP);
  overlap.set_emit_overlap(0.4);
  int by_center = 0, by_overlap = 0;
  for (int seed = 0; seed < 500; ++seed) {
    TransformRng rng(seed);
    const std::vector<ObjectBox> before = RandomObjects(5, &rng);
    const Box frame = RandomBox(&rng);
    std::vector<ObjectBox> centered = before, overlapped = before;
    MoveObjects(frame, &center, &centered);
    MoveObjects(frame, &overlap, &overlapped);
    const auto holds = [](const std::vector<ObjectBox>& objects, int instance) {
      for (const ObjectBox& object : objects) {
        if (object.instance_id == instance) { return true; }
      }
      return false;
    };
    for (const ObjectBox& object : before) {
      const Box& box = object.box;
      EXPECT_EQ(On(frame, (box.xmin + box.xmax) / 2, (box.ymin + box.ymax) / 2), holds(centered, object.instance_id));
      EXPECT_EQ(Coverage(box, frame) > 0.4f, holds(overlapped, object.instance_id));
    }
    by_center += centered.size();
    by_overlap += overlapped.size();
  }
  EXPECT_GT(by_center, 100);
  EXPECT_NE(by_center, by_overlap);
}

TEST(ObjectBoxTest, TestMirror) {
  std::vector<ObjectBox> objects(1);
  objects[0].box = {0.1, 0.2, 0.4, 0.9};
  MirrorObjects(&objects);
  EXPECT_NEAR(0.6, objects[0].box.xmin, 1e-15);
  EXPECT_NEAR(0.9, objects[0].box.xmax, 1e-15);
  EXPECT_EQ(0.2, objects[0].box.ymin);
  EXPECT_EQ(0.9, objects[0].box.ymax);
}

TEST(ObjectBoxTest, TestObjectsOf) {
  AnnotatedDatum record;
  for (int label : {7, 2}) {
    AnnotationGroup* group = record.add_annotation_group();
    group->set_group_label(label);
    for (int instance = 0; instance < 2; ++instance) {
      Annotation* annotation = group->add_annotation();
      annotation->set_instance_id(instance + 3);
      annotation->mutable_bbox()->set_xmin(label / 10.f);
      annotation->mutable_bbox()->set_ymax(instance);
      annotation->mutable_bbox()->set_difficult(instance == 1);
    }
  }
  const std::vector<ObjectBox> objects = ObjectsOf(record);
  ASSERT_EQ(4, objects.size());
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(i < 2 ? 7 : 2, objects[i].group_label);
    EXPECT_EQ(i % 2 + 3, objects[i].instance_id);
    EXPECT_EQ(i < 2 ? 0.7f : 0.2f, objects[i].box.xmin);
    EXPECT_EQ(i % 2, objects[i].box.ymax);
    EXPECT_EQ(i % 2 == 1, objects[i].difficult);
  }
}

TEST(SamplerTest, TestSampleBox) {
  for (int seed = 0; seed < 5000; ++seed) {
    TransformRng rng(seed);
    Sampler sampler;
    sampler.set_min_scale(rng.Uniform(0.05, 1));
    sampler.set_max_scale(rng.Uniform(sampler.min_scale(), 1));
    sampler.set_min_aspect_ratio(rng.Uniform(0.2, 2));
    sampler.set_max_aspect_ratio(rng.Uniform(sampler.min_aspect_ratio(), 4));
    const Box box = SampleBox(sampler, &rng);
    EXPECT_GE(box.xmin, 0);
    EXPECT_GE(box.ymin, 0);
    EXPECT_LE(box.xmax, 1);
    EXPECT_LE(box.ymax, 1);
    const double scale = std::sqrt(box.Area()), ratio = (box.xmax - box.xmin) / (box.ymax - box.ymin);
    EXPECT_GE(scale, sampler.min_scale() - 1e-6);
    EXPECT_LE(scale, sampler.max_scale() + 1e-6);
    // The range asked for, or the nearest ratio that fits the image at this scale.
    EXPECT_GE(ratio, std::min<double>(sampler.min_aspect_ratio(), 1 / (scale * scale)) - 1e-6);
    EXPECT_LE(ratio, std::max<double>(sampler.max_aspect_ratio(), scale * scale) + 1e-6);
  }
  TransformRng rng(0);
  const Box whole = SampleBox(Sampler(), &rng);  // the defaults: the image itself
  EXPECT_EQ(0, whole.xmin);
  EXPECT_EQ(0, whole.ymin);
  EXPECT_EQ(1, whole.xmax);
  EXPECT_EQ(1, whole.ymax);
}

// Every box found meets its sampler's constraint with one object, for many images and constraints.
TEST(SamplerTest, TestConstraintsHold) {
  int found = 0, refused = 0;
  for (int seed = 0; seed < 600; ++seed) {
    TransformRng rng(seed);
    const std::vector<ObjectBox> objects = RandomObjects(1 + rng.Index(6), &rng);
    BatchSampler sampler;
    sampler.mutable_sampler()->set_min_scale(0.3);
    sampler.mutable_sampler()->set_min_aspect_ratio(0.5);
    sampler.mutable_sampler()->set_max_aspect_ratio(2);
    sampler.set_max_trials(20);
    sampler.set_max_sample(1 + rng.Index(3));
    SampleConstraint* constraint = sampler.mutable_sample_constraint();
    if (rng.Happens(0.4)) { constraint->set_min_jaccard_overlap(rng.Uniform(0, 0.6)); }
    if (rng.Happens(0.4)) { constraint->set_max_jaccard_overlap(rng.Uniform(0, 0.6)); }
    if (rng.Happens(0.3)) { constraint->set_min_sample_coverage(rng.Uniform(0, 0.5)); }
    if (rng.Happens(0.3)) { constraint->set_max_sample_coverage(rng.Uniform(0, 0.5)); }
    if (rng.Happens(0.3)) { constraint->set_min_object_coverage(rng.Uniform(0, 1)); }
    if (rng.Happens(0.3)) { constraint->set_max_object_coverage(rng.Uniform(0, 1)); }
    const std::vector<Box> boxes = SampleBoxes(objects, {sampler}, &rng);
    EXPECT_LE(boxes.size(), sampler.max_sample());
    refused += boxes.empty();
    for (const Box& box : boxes) {
      ++found;
      bool met = false;
      for (const ObjectBox& object : objects) {
        const double inside = Intersection(box, object.box).Area();
        const double jaccard = inside / (box.Area() + object.box.Area() - inside);
        const SampleConstraint& c = *constraint;
        met = met || ((!c.has_min_jaccard_overlap() || jaccard >= c.min_jaccard_overlap()) &&
                      (!c.has_max_jaccard_overlap() || jaccard <= c.max_jaccard_overlap()) &&
                      (!c.has_min_sample_coverage() || inside / box.Area() >= c.min_sample_coverage()) &&
                      (!c.has_max_sample_coverage() || inside / box.Area() <= c.max_sample_coverage()) &&
                      (!c.has_min_object_coverage() || inside / object.box.Area() >= c.min_object_coverage()) &&
                      (!c.has_max_object_coverage() || inside / object.box.Area() <= c.max_object_coverage()));
      }
      EXPECT_TRUE(met) << "seed " << seed;
    }
  }
  EXPECT_GT(found, 300);
  EXPECT_GT(refused, 20);
}

TEST(SamplerTest, TestCounts) {
  TransformRng rng(5);
  BatchSampler any, none, never;
  any.set_max_sample(3);
  none.set_use_original_image(false);
  never.mutable_sample_constraint()->set_min_jaccard_overlap(0.5);
  const std::vector<ObjectBox> objects(1);
  EXPECT_EQ(3, SampleBoxes(objects, {any}, &rng).size());
  EXPECT_EQ(6, SampleBoxes(objects, {any, none, any}, &rng).size());
  EXPECT_EQ(0, SampleBoxes({}, {never}, &rng).size());  // nothing to overlap with
  any.clear_max_sample();
  any.set_max_trials(50);
  EXPECT_EQ(50, SampleBoxes({}, {any}, &rng).size());
}

TEST(SamplerDeathTest, TestRanges) {
  BatchSampler sampler;
  CheckBatchSampler(sampler, "here");
  sampler.mutable_sampler()->set_max_scale(1.5);
  EXPECT_DEATH(CheckBatchSampler(sampler, "layer 'data'"), "layer 'data': batch_sampler scales \\[1, 1.5\\]");
  sampler.Clear();
  sampler.mutable_sampler()->set_min_aspect_ratio(2);
  EXPECT_DEATH(CheckBatchSampler(sampler, "layer 'data'"), "aspect ratios \\[2, 1\\]");
}

}  // namespace caffe
