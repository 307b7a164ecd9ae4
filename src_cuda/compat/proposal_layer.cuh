// Force-included into the fork's proposal_layer.cu alone: it asks for the code of a gradient that it declares and does
// not have. Proposals have none; on the CPU the fork's does nothing either.
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
