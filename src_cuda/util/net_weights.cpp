// Net::CopyTrainedLayersFrom (compat/net_passes.hpp): as the fork's, but nobody is taken to keep the pointers that it
// writes the weights with, so that a forward pass need not pack them anew each time (util/packed_weights.hpp).
#include <algorithm>
#include <string>
#include <vector>

#include "caffe/net.hpp"

namespace caffe {

namespace {

template <typename Dtype>
void CopyWeights(const LayerParameter& source, const vector<shared_ptr<Blob<Dtype>>>& blobs) {
  CHECK_EQ(source.blobs_size(), blobs.size()) << "The file has " << source.blobs_size() << " weight blobs for layer "
                                              << source.name() << ", which has " << blobs.size() << ".";
  for (int i = 0; i < blobs.size(); ++i) {
    if (!blobs[i]->ShapeEquals(source.blobs(i))) {
      Blob<Dtype> given;
      given.FromProto(source.blobs(i));
      LOG(FATAL) << "The file's weight blob " << i << " for layer " << source.name() << " has shape "
                 << given.shape_string() << ", must have " << blobs[i]->shape_string()
                 << ". To start with other weights, rename the layer.";
    }
    blobs[i]->FromProto(source.blobs(i), false);
  }
}

template <typename Dtype>
void CopyTrainedLayers(const NetParameter& param, const vector<std::string>& names,
                       const vector<shared_ptr<Layer<Dtype>>>& layers) {
  const SyncedMemory::Passing passing;
  for (const LayerParameter& source : param.layer()) {
    const size_t i = std::find(names.begin(), names.end(), source.name()) - names.begin();
    if (i == names.size()) {
      LOG(INFO) << "Ignoring source layer " << source.name();
      continue;
    }
    LOG(INFO) << "Copying source layer " << source.name();
    CopyWeights(source, layers[i]->blobs());
  }
}

}  // namespace

template <>
void Net<float>::CopyTrainedLayersFrom(const NetParameter& param) {
  CopyTrainedLayers(param, layer_names_, layers_);
}
template <>
void Net<double>::CopyTrainedLayersFrom(const NetParameter& param) {
  CopyTrainedLayers(param, layer_names_, layers_);
}

}  // namespace caffe
