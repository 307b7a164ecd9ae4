#ifndef CAFFE_UTIL_NORM_UNIT_HPP_
#define CAFFE_UTIL_NORM_UNIT_HPP_

#include <vector>

#include "caffe/layer.hpp"

namespace caffe {

/**
 * A BatchNorm with the statistics of its batch, the Scale after it and, if it follows, a ReLU6, all in place on one
 * blob: computed together on the CPU, in one pass over memory in place of three.
 *
 * Forward gives the blob and the layers' blobs the bits that the layers one by one give them. Backward adds the sums of
 * a channel once for both layers, in another order: its gradients differ from theirs by rounding. Scale keeps no copy
 * of its input, which BatchNorm has; it is written if the layer's own Backward asks for it.
 */
template <typename Dtype>
class NormUnit {
 public:
  typedef std::vector<shared_ptr<Layer<Dtype>>> Layers;
  typedef std::vector<std::vector<Blob<Dtype>*>> Blobs;

  /// How many layers from `first` on, and before `end`, are such a unit; 0 if they are none.
  static int LayersFrom(const Layers& layers, const Blobs& bottoms, const Blobs& tops, int first, int end);

  /// What Layer::Forward does, for that many layers.
  static void Forward(const Layers& layers, const Blobs& bottoms, const Blobs& tops, int first, int count);

  /// What Layer::Backward does, for that many layers. False, and nothing is done, unless Scale's input is what
  /// BatchNorm has now: one of them may have been run by itself since they were computed together, or another layer
  /// between them.
  static bool Backward(const Layers& layers, const Blobs& bottoms, int first, int count);
};

}  // namespace caffe

#endif  // CAFFE_UTIL_NORM_UNIT_HPP_
