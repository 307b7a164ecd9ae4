#ifndef CAFFE_UTIL_SAMPLER_H_
#define CAFFE_UTIL_SAMPLER_H_

#include <string>
#include <vector>

#include "caffe/proto/caffe.pb.h"
#include "caffe/util/object_box.hpp"
#include "caffe/util/transform_rng.hpp"

namespace caffe {

/**
 * @brief Stops with one line, which begins with `where`, if the sampler's ranges cannot be sampled from.
 *
 * 0 < min_scale <= max_scale <= 1 and 0 < min_aspect_ratio <= max_aspect_ratio < infinity.
 */
void CheckBatchSampler(const BatchSampler& batch_sampler, const std::string& where);

/**
 * @brief Draws a box: its scale, its aspect ratio, then its place, each uniform.
 *
 * width = scale * sqrt(ratio), height = scale / sqrt(ratio). The ratio is kept within [scale^2, 1 / scale^2], where the
 * box fits the image.
 */
Box SampleBox(const Sampler& sampler, TransformRng* rng);

/**
 * @brief True if some object meets every bound of the constraint, or if it has none.
 *
 * jaccard_overlap: intersection over union of box and object; sample_coverage: the share of the box on the object;
 * object_coverage: the share of the object on the box.
 */
bool MeetsConstraint(const Box& box, const std::vector<ObjectBox>& objects, const SampleConstraint& constraint);

/**
 * @brief The boxes that a list of batch samplers finds on one image, in the samplers' order.
 *
 * Each sampler tries max_trials times and stops at max_sample boxes that meet its constraint; one that has
 * use_original_image false finds none.
 */
std::vector<Box> SampleBoxes(const std::vector<ObjectBox>& objects, const std::vector<BatchSampler>& batch_samplers,
                             TransformRng* rng);

}  // namespace caffe

#endif  // CAFFE_UTIL_SAMPLER_H_
