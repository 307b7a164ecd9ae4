// A net for the tests of a whole forward pass in phase TEST: made of layers in prototxt, and run whole or layer by
// layer.
#ifndef SSDLITE_CAFFE_TEST_NET_FORWARD_TEST_HPP_
#define SSDLITE_CAFFE_TEST_NET_FORWARD_TEST_HPP_

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "caffe/net.hpp"
#include "cpu_layers_test.hpp"

namespace caffe {

template <typename Dtype>
class NetForwardTest : public CpuLayersTest<Dtype> {
 protected:
  void Make(const std::string& layers, Phase phase = TEST, bool force_backward = false) {
    NetParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString(
        "layer { name: 'data' type: 'Input' top: 'data' input_param { shape { dim: 2 dim: 6 dim: 33 dim: 41 } } }" +
            layers,
        &param))
        << layers;
    param.mutable_state()->set_phase(phase);
    param.set_force_backward(force_backward);
    net_.reset(new Net<Dtype>(param));
    const SyncedMemory::Passing passing;  // so that weights are packed once
    for (Blob<Dtype>* blob : net_->learnable_params()) { this->Fill(blob); }
    for (const shared_ptr<Layer<Dtype>>& layer : net_->layers()) {
      if (layer->layer_param().type() != "BatchNorm") { continue; }
      for (const int i : {1, 2}) {  // the variance, and its weight
        Dtype* values = layer->blobs()[i]->mutable_cpu_data();
        for (int c = 0; c < layer->blobs()[i]->count(); ++c) { values[c] = std::fabs(values[c]) + Dtype(0.5); }
      }
    }
  }

  typedef std::map<std::string, std::vector<Dtype>> Values;

  Values Read() {
    Values values;
    for (int i = 0; i < net_->blobs().size(); ++i) {
      const Blob<Dtype>& blob = *net_->blobs()[i];
      values[net_->blob_names()[i]].assign(blob.cpu_data(), blob.cpu_data() + blob.count());
    }
    return values;
  }

  static Values Without(const std::string& name, Values values) {
    values.erase(name);
    return values;
  }

  void FillInput(const int seed) {
    this->random_.seed(seed);
    this->Fill(net_->input_blobs()[0]);
  }

  void Pass(const bool whole) {
    if (whole) {
      net_->Forward();
    } else {
      for (int i = 0; i < net_->layers().size(); ++i) { net_->ForwardFromTo(i, i); }
    }
  }

  /// The values of all blobs after a pass, which were spoilt before it.
  Values Run(const bool whole) {
    for (const shared_ptr<Blob<Dtype>>& blob : net_->blobs()) {
      Dtype* to = blob->mutable_cpu_data();
      std::fill(to, to + blob->count(), Dtype(-77));
    }
    FillInput(5);
    Pass(whole);
    return Read();
  }

  static void ExpectEqual(const Values& one_by_one, const Values& whole) {
    for (const auto& item : one_by_one) {
      const std::vector<Dtype>& other = whole.at(item.first);
      ASSERT_EQ(item.second.size(), other.size());
      // Values that are no numbers would all be the same.
      for (const Dtype value : item.second) { ASSERT_TRUE(std::isfinite(value)) << item.first; }
      EXPECT_EQ(0, std::memcmp(item.second.data(), other.data(), other.size() * sizeof(Dtype))) << item.first;
    }
  }

  /// As the layers one by one: a second pass whose blobs nobody has read or written (but the input), and one after
  /// pointers to all of them were given.
  void ExpectSame() {
    net_->Reshape();
    FillInput(4);
    net_->Forward();
    FillInput(5);
    net_->Forward();
    const Values second = Read(), one_by_one = Run(false), whole = Run(true);
    {
      SCOPED_TRACE("second pass");
      ExpectEqual(one_by_one, second);
    }
    ExpectEqual(one_by_one, whole);
  }

  shared_ptr<Net<Dtype>> net_;
};

inline std::string Conv(const std::string& name, const std::string& bottom, const std::string& setting) {
  return "layer { name: '" + name + "' type: 'Convolution' bottom: '" + bottom + "' top: '" + name +
         "' convolution_param { " + setting + " } }";
}

inline std::string InPlace(const std::string& blob, const std::string& type, const std::string& more = "") {
  return "layer { name: '" + blob + "/" + type + "' type: '" + type + "' bottom: '" + blob + "' top: '" + blob + "' " +
         more + " }";
}

inline std::string LayerOf(const std::string& type, const std::string& bottoms, const std::string& top,
                           const std::string& more = "") {
  std::string text = "layer { name: '" + top + "/" + type + "' type: '" + type + "' top: '" + top + "' " + more;
  for (size_t begin = 0; begin < bottoms.size();) {
    const size_t end = std::min(bottoms.find(' ', begin), bottoms.size());
    text += " bottom: '" + bottoms.substr(begin, end - begin) + "'";
    begin = end + 1;
  }
  return text + " }";
}

const char kShift[] = "power_param { shift: 3 }", kSixth[] = "power_param { scale: 0.16666667 }",
           kProduct[] = "eltwise_param { operation: PROD }";

}  // namespace caffe

#endif  // SSDLITE_CAFFE_TEST_NET_FORWARD_TEST_HPP_
