// Force-included into the fork's proposal_layer.cu alone: it instantiates a gradient that is declared but not defined.
// Proposals have no gradient; the fork's CPU version does nothing either.
#ifndef SSDLITE_CAFFE_COMPAT_PROPOSAL_LAYER_CUH_
#define SSDLITE_CAFFE_COMPAT_PROPOSAL_LAYER_CUH_

#include <vector>

#include "caffe/layers/proposal_layer.hpp"

namespace caffe {

template <typename Dtype>
void ProposalLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                        const vector<Blob<Dtype>*>& bottom) {}

}  // namespace caffe

#endif  // SSDLITE_CAFFE_COMPAT_PROPOSAL_LAYER_CUH_
