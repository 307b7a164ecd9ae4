#include "caffe/util/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "glog/logging.h"

namespace caffe {

void CheckBatchSampler(const BatchSampler& batch_sampler, const std::string& where) {
  const Sampler& sampler = batch_sampler.sampler();
  CHECK(sampler.min_scale() > 0 && sampler.min_scale() <= sampler.max_scale() && sampler.max_scale() <= 1)
      << where << ": batch_sampler scales [" << sampler.min_scale() << ", " << sampler.max_scale()
      << "] must lie in (0, 1], the smaller first";
  CHECK(sampler.min_aspect_ratio() > 0 && sampler.min_aspect_ratio() <= sampler.max_aspect_ratio() &&
        std::isfinite(sampler.max_aspect_ratio()))
      << where << ": batch_sampler aspect ratios [" << sampler.min_aspect_ratio() << ", " << sampler.max_aspect_ratio()
      << "] must be positive and finite, the smaller first";
}

Box SampleBox(const Sampler& sampler, TransformRng* rng) {
  const double scale = rng->Uniform(sampler.min_scale(), sampler.max_scale());
  const double lowest = std::max<double>(sampler.min_aspect_ratio(), scale * scale);
  const double highest = std::min<double>(sampler.max_aspect_ratio(), 1 / (scale * scale));
  // If no ratio of the range fits, the nearest one that fits is taken.
  const double ratio = std::min(std::max(rng->Uniform(lowest, highest), scale * scale), 1 / (scale * scale));
  const double width = std::min(scale * std::sqrt(ratio), 1.);
  const double height = std::min(scale / std::sqrt(ratio), 1.);
  const double x = rng->Uniform(0, 1 - width);
  const double y = rng->Uniform(0, 1 - height);
  return {x, y, std::min(x + width, 1.), std::min(y + height, 1.)};
}

bool MeetsConstraint(const Box& box, const std::vector<ObjectBox>& objects, const SampleConstraint& constraint) {
  const auto& c = constraint;
  if (!c.has_min_jaccard_overlap() && !c.has_max_jaccard_overlap() && !c.has_min_sample_coverage() &&
      !c.has_max_sample_coverage() && !c.has_min_object_coverage() && !c.has_max_object_coverage()) {
    return true;
  }
  for (const ObjectBox& object : objects) {
    const double jaccard = Jaccard(box, object.box);
    const double sample = Coverage(box, object.box);
    const double covered = Coverage(object.box, box);
    if ((!c.has_min_jaccard_overlap() || jaccard >= c.min_jaccard_overlap()) &&
        (!c.has_max_jaccard_overlap() || jaccard <= c.max_jaccard_overlap()) &&
        (!c.has_min_sample_coverage() || sample >= c.min_sample_coverage()) &&
        (!c.has_max_sample_coverage() || sample <= c.max_sample_coverage()) &&
        (!c.has_min_object_coverage() || covered >= c.min_object_coverage()) &&
        (!c.has_max_object_coverage() || covered <= c.max_object_coverage())) {
      return true;
    }
  }
  return false;
}

std::vector<Box> SampleBoxes(const std::vector<ObjectBox>& objects, const std::vector<BatchSampler>& batch_samplers,
                             TransformRng* rng) {
  std::vector<Box> boxes;
  for (const BatchSampler& batch_sampler : batch_samplers) {
    if (!batch_sampler.use_original_image()) { continue; }
    unsigned found = 0;
    for (unsigned trial = 0; trial < batch_sampler.max_trials(); ++trial) {
      if (batch_sampler.has_max_sample() && found >= batch_sampler.max_sample()) { break; }
      const Box box = SampleBox(batch_sampler.sampler(), rng);
      if (MeetsConstraint(box, objects, batch_sampler.sample_constraint())) {
        boxes.push_back(box);
        ++found;
      }
    }
  }
  return boxes;
}

}  // namespace caffe
