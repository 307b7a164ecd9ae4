// A whole forward pass in phase TEST, which keeps maps in blocks of channels and takes layers together
// (util/net_forward.cpp), against the same layers one by one: every blob, digit by digit.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "caffe/net.hpp"
#include "caffe/util/conv_chain.hpp"
#include "caffe/util/packed_weights.hpp"
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

  /// The values of all blobs after a pass, which were spoilt before it.
  Values Run(const bool whole) {
    for (const shared_ptr<Blob<Dtype>>& blob : net_->blobs()) {
      Dtype* to = blob->mutable_cpu_data();
      std::fill(to, to + blob->count(), Dtype(-77));
    }
    FillInput(5);
    const int last = net_->layers().size() - 1;
    if (whole) {
      net_->Forward();
    } else {
      for (int i = 0; i <= last; ++i) { net_->ForwardFromTo(i, i); }
    }
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

TYPED_TEST_CASE(NetForwardTest, Numbers);

std::string Conv(const std::string& name, const std::string& bottom, const std::string& setting) {
  return "layer { name: '" + name + "' type: 'Convolution' bottom: '" + bottom + "' top: '" + name +
         "' convolution_param { " + setting + " } }";
}

std::string InPlace(const std::string& blob, const std::string& type, const std::string& more = "") {
  return "layer { name: '" + blob + "/" + type + "' type: '" + type + "' bottom: '" + blob + "' top: '" + blob + "' " +
         more + " }";
}

std::string LayerOf(const std::string& type, const std::string& bottoms, const std::string& top,
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

TYPED_TEST(NetForwardTest, ActivationsAfterConvolutions) {
  const std::string settings[] = {"num_output: 19 kernel_size: 1",
                                  "num_output: 70 kernel_size: 1 bias_term: false",
                                  "num_output: 10 kernel_size: 4 pad: 1 stride: 2",
                                  "num_output: 8 kernel_size: 3 group: 2 tf_pad: SAME",
                                  "num_output: 6 group: 6 kernel_size: 3 pad: 1",
                                  "num_output: 6 group: 6 kernel_size: 4 pad: 1 stride: 2",
                                  "num_output: 6 group: 6 kernel_size: 7 pad: 3 stride: 3",
                                  "num_output: 6 group: 6 kernel_h: 5 kernel_w: 2 pad_h: 2 stride_h: 3 stride_w: 1",
                                  "num_output: 6 group: 6 kernel_size: 5 pad: 6 dilation: 3",
                                  "num_output: 6 group: 6 kernel_size: 1",
                                  "num_output: 33 kernel_size: 1 stride: 2",
                                  "num_output: 9 kernel_size: 3 pad: 4 dilation: 2 stride: 2",
                                  "num_output: 4 kernel_size: 1 stride: 3",
                                  "num_output: 5 kernel_h: 33 kernel_w: 41"};
  const std::string activations[] = {InPlace("conv", "ReLU6"),
                                     InPlace("conv", "ReLU"),
                                     InPlace("conv", "Clip", "clip_param { min: -0.5 max: 0.25 }"),
                                     InPlace("conv", "ReLU6", "relu6_param { negative_slope: 0.5 }"),
                                     InPlace("conv", "ReLU", "relu_param { negative_slope: 0.1 }"),
                                     InPlace("conv", "HardSwish"),
                                     InPlace("conv", "HardSigmoid"),
                                     ""};
  for (const std::string& setting : settings) {
    for (const std::string& activation : activations) {
      SCOPED_TRACE(setting + activation);
      // Two readers of the blob: with a Split after the activation.
      this->Make(Conv("conv", "data", setting) + activation + Conv("a", "conv", "num_output: 3 kernel_size: 1") +
                 Conv("b", "conv", "num_output: 3 kernel_size: 1"));
      this->ExpectSame();
    }
  }
}

TYPED_TEST(NetForwardTest, ThreeConvolutions) {
  // Maps of many rows and of one, channels that fill their blocks and that do not; the last of few rows is one value.
  const std::string firsts[] = {"num_output: 24 kernel_size: 1", "num_output: 27 kernel_size: 3 pad: 1",
                                "num_output: 75 kernel_size: 1 bias_term: false"};
  const std::string depthwise[] = {"kernel_size: 3 pad: 1",
                                   "kernel_size: 4 pad: 1 stride: 2",
                                   "kernel_size: 5 stride: 2 tf_pad: SAME",
                                   "kernel_size: 2 stride: 2",
                                   "kernel_size: 3 pad: 7",
                                   "kernel_h: 3 kernel_w: 6 pad_h: 1 pad_w: 2 stride: 2",
                                   "kernel_size: 3 pad: 2 dilation: 2 bias_term: false",
                                   "kernel_size: 1 stride: 3"};
  const std::string lasts[] = {"num_output: 9 kernel_size: 1", "num_output: 40 kernel_size: 3 pad: 1 stride: 2"};
  for (const std::string& first : firsts) {
    const std::string channels = first.substr(0, first.find(" kernel"));
    for (const std::string& second : depthwise) {
      for (const std::string& last : lasts) {
        const std::vector<std::vector<int>> sizes = {{60, 81}, {19, 19}, {3, 3}, {2, 50}};
        for (const std::vector<int>& size : sizes) {
          SCOPED_TRACE(first + ", " + second + ", " + last + ", " + std::to_string(size[1]));
          // Anew each time: of blobs that somebody has read, all are stored.
          this->Make(Conv("a", "data", first) + InPlace("a", "ReLU6") +
                     Conv("b", "a", channels + " group: " + channels.substr(12) + " " + second) + InPlace("b", "ReLU") +
                     Conv("c", "b", last));
          // One image, whose layers the threads divide, and several, which they divide.
          this->net_->input_blobs()[0]->Reshape(size[0] == 60 ? 1 : 3, 6, size[0], size[1]);
          this->ExpectSame();
        }
      }
    }
  }
}

TYPED_TEST(NetForwardTest, HardSwishes) {
  const std::string ramp = LayerOf("Power", "conv", "ramp", kShift) + LayerOf("ReLU6", "ramp", "ramp");
  const std::string sixth = LayerOf("Power", "swish", "swish", kSixth);
  const std::string kinds[] = {
      LayerOf("HardSwish", "conv", "swish"),
      ramp + LayerOf("Eltwise", "conv ramp", "swish", kProduct) + sixth,
      ramp + LayerOf("Eltwise", "ramp conv", "swish", kProduct) + sixth,
      LayerOf("Power", "conv", "ramp", "power_param { shift: 0 }") + LayerOf("ReLU6", "ramp", "ramp") +
          LayerOf("Eltwise", "conv ramp", "swish", kProduct) + sixth,
      // What looks like one, and is not.
      ramp + LayerOf("Eltwise", "conv ramp", "swish") + sixth,
      ramp + LayerOf("Eltwise", "data ramp", "swish", kProduct) + sixth,
      ramp + LayerOf("Eltwise", "conv ramp", "swish", kProduct) +
          LayerOf("Power", "swish", "swish", "power_param { scale: 0.2 shift: 1 }"),
      LayerOf("Power", "conv", "ramp", "power_param { shift: 3 scale: 2 }") + LayerOf("ReLU6", "ramp", "ramp") +
          LayerOf("Eltwise", "conv ramp", "swish", kProduct) + sixth,
      LayerOf("Power", "conv", "ramp", kShift) + LayerOf("ReLU6", "ramp", "kept") +
          LayerOf("Eltwise", "conv kept", "swish", kProduct) + sixth,
  };
  for (const std::string& kind : kinds) {
    for (const std::string& setting :
         {"num_output: 6 kernel_size: 1", "num_output: 6 group: 6 kernel_size: 3 pad: 1"}) {
      SCOPED_TRACE(kind);
      this->Make(Conv("conv", "data", setting) + kind + Conv("after", "swish", "num_output: 2 kernel_size: 1"));
      this->ExpectSame();
    }
  }
}

TYPED_TEST(NetForwardTest, WhatIsNotKept) {
  typedef TypeParam Dtype;
  const auto activation = [](const int kind, const std::string& blob) -> std::string {
    switch (kind) {
      case 0: return InPlace(blob, "ReLU6");
      case 1: return InPlace(blob, "HardSwish");
      case 2: return LayerOf("HardSwish", blob, blob + "_act");
      default:
        return LayerOf("Power", blob, blob + "_ramp", kShift) + LayerOf("ReLU6", blob + "_ramp", blob + "_ramp") +
               LayerOf("Eltwise", blob + " " + blob + "_ramp", blob + "_act", kProduct) +
               LayerOf("Power", blob + "_act", blob + "_act", kSixth);
    }
  };
  const auto made = [](const int kind, const std::string& blob) { return kind < 2 ? blob : blob + "_act"; };
  // The first reads the input as it is, or in blocks; or there is none.
  for (const std::string& before : {"", "num_output: 6 kernel_size: 3 pad: 1", "num_output: 20 kernel_size: 1"}) {
    for (int kind = 0; kind < 16; ++kind) {
      const int a = kind % 4, b = kind / 4;
      SCOPED_TRACE(before + ", " + std::to_string(kind));
      const std::string first = before.empty() ? "data" : "x";
      const std::string channels = before == "num_output: 20 kernel_size: 1" ? "20" : "6";
      this->Make((before.empty() ? "" : Conv("x", "data", before)) +
                 Conv("a", first, "num_output: 19 kernel_size: 3 pad: 1 stride: 2") + activation(a, "a") +
                 Conv("b", made(a, "a"), "num_output: 19 group: 19 kernel_size: 3 pad: 1") + activation(b, "b") +
                 Conv("c", made(b, "b"), "num_output: 7 kernel_size: 1") + activation(a, "c"));
      for (const int seed : {4, 5}) {
        this->FillInput(seed);
        this->net_->Forward();
      }
      for (const std::string& name : {made(a, "a"), made(b, "b")}) {
        const auto& values = this->net_->blob_by_name(name)->data()->deferred();
        EXPECT_NE(nullptr, dynamic_cast<const NotKept<Dtype>*>(values.get())) << name;
      }
      // Another input, and other weights, are there when somebody asks.
      std::vector<std::vector<Dtype>> weights;
      for (Blob<Dtype>* blob : this->net_->learnable_params()) {
        weights.emplace_back(blob->cpu_data(), blob->cpu_data() + blob->count());
        this->Fill(blob);
      }
      this->FillInput(9);
      const auto asked = this->Without("data", this->Read());
      for (size_t w = 0; w < weights.size(); ++w) {
        std::copy(weights[w].begin(), weights[w].end(), this->net_->learnable_params()[w]->mutable_cpu_data());
      }
      this->ExpectEqual(this->Without("data", this->Run(false)), asked);
    }
  }
}

const char kChain[] =
    "layer { name: 'a' type: 'Convolution' bottom: 'data' top: 'a' convolution_param { num_output: 8 kernel_size: 1 } }"
    "layer { name: 'b' type: 'Convolution' bottom: 'a' top: 'b' convolution_param { num_output: 8 group: 8 "
    "kernel_size: 3 "
    "pad: 1 } }"
    "layer { name: 'c' type: 'Convolution' bottom: 'b' top: 'c' convolution_param { num_output: 8 kernel_size: 1 } }";

/// Two nets of which the second, a convolution, reads the memory of a blob of the first.
TYPED_TEST(NetForwardTest, MemoryOfAnotherNet) {
  typedef TypeParam Dtype;
  const std::string reader =
      "layer { name: 'in' type: 'Input' top: 'in' input_param { shape { dim: 2 dim: 8 dim: 33 dim: 41 } } }" +
      Conv("out", "in", "num_output: 9 kernel_size: 3");
  for (const std::string& name : {"a", "b", "c"}) {
    SCOPED_TRACE(name);
    this->Make(kChain);
    const shared_ptr<Net<Dtype>> first = this->net_;
    this->Make(reader);
    const shared_ptr<Net<Dtype>> second = this->net_;
    Blob<Dtype>* in = second->blob_by_name("in").get();
    in->ShareData(*first->blob_by_name(name));
    const auto run = [&](const int seed) {
      this->net_ = first;
      this->FillInput(seed);
      first->Forward();
      second->Forward();
      this->net_ = second;
      return this->Read();
    };
    const auto one_by_one = [&] {
      for (int i = 0; i < first->layers().size(); ++i) { first->ForwardFromTo(i, i); }
      for (int i = 0; i < second->layers().size(); ++i) { second->ForwardFromTo(i, i); }
      return this->Read();
    };
    for (const int seed : {4, 5, 6}) {
      SCOPED_TRACE(seed);
      first->Reshape();
      const auto whole = run(seed);
      this->ExpectEqual(one_by_one(), whole);
    }
    // Written between the two, through a pointer that is kept.
    Dtype* values = in->mutable_cpu_data();
    first->Forward();
    values[0] += 100;
    second->Forward();
    const auto whole = this->Read();
    for (int i = 0; i < second->layers().size(); ++i) { second->ForwardFromTo(i, i); }
    this->ExpectEqual(this->Read(), whole);
  }
}

TYPED_TEST(NetForwardTest, StateOfThePassBefore) {
  typedef TypeParam Dtype;
  this->Make(
      "layer { name: 'state' type: 'Input' top: 'state' input_param { shape { dim: 2 dim: 8 dim: 33 dim: 41 } } }" +
      Conv("old", "state", "num_output: 7 kernel_size: 1") + kChain);
  this->net_->blob_by_name("state")->ShareData(*this->net_->blob_by_name("a"));
  std::vector<Dtype> old[2];
  for (const bool whole : {true, false}) {
    for (const int seed : {4, 5}) {
      this->FillInput(seed);
      if (whole) {
        this->net_->Forward();
      } else {
        for (int i = 0; i < this->net_->layers().size(); ++i) { this->net_->ForwardFromTo(i, i); }
      }
    }
    const Blob<Dtype>& blob = *this->net_->blob_by_name("old");
    old[whole].assign(blob.cpu_data(), blob.cpu_data() + blob.count());
  }
  EXPECT_EQ(old[0], old[1]);
}

TYPED_TEST(NetForwardTest, ValuesKeptBySomebodyElse) {
  typedef TypeParam Dtype;
  this->Make(kChain);
  this->FillInput(4);
  this->net_->Forward();
  Blob<Dtype>* a = this->net_->blob_by_name("a").get();
  Blob<Dtype> mine(a->shape()), other(a->shape());
  mine.ShareData(*a);
  a->ShareData(other);
  this->FillInput(5);
  this->net_->Forward();
  const std::vector<Dtype> kept(mine.cpu_data(), mine.cpu_data() + mine.count());
  this->FillInput(4);
  for (int i = 0; i < this->net_->layers().size(); ++i) { this->net_->ForwardFromTo(i, i); }
  EXPECT_EQ(kept, std::vector<Dtype>(a->cpu_data(), a->cpu_data() + a->count()));
}

TYPED_TEST(NetForwardTest, WeightsThatAnotherNetMakes) {
  typedef TypeParam Dtype;
  this->Make(Conv("made", "data", "num_output: 8 kernel_size: 1"));
  const shared_ptr<Net<Dtype>> first = this->net_;
  first->input_blobs()[0]->Reshape(9, 6, 1, 1);
  first->Reshape();
  Blob<Dtype> weights(9, 8, 1, 1);
  weights.ShareData(*first->blob_by_name("made"));
  this->Make("layer { name: 'in' type: 'Input' top: 'in' input_param { shape { dim: 2 dim: 8 dim: 5 dim: 5 } } }" +
             Conv("conv", "in", "num_output: 9 kernel_size: 1 bias_term: false"));
  this->Fill(this->net_->blob_by_name("in").get());
  this->net_->layers().back()->blobs()[0]->ShareData(weights);
  for (const int seed : {4, 5, 6}) {
    SCOPED_TRACE(seed);
    this->random_.seed(seed);
    this->Fill(first->input_blobs()[0]);
    first->Forward();
    this->net_->Forward();
    const auto whole = this->Read();
    for (int i = 0; i < this->net_->layers().size(); ++i) { this->net_->ForwardFromTo(i, i); }
    this->ExpectEqual(this->Read(), whole);
  }
}

/// Weights of a net for CopyTrainedLayersFrom.
template <typename Dtype>
NetParameter WeightsOf(const Net<Dtype>& net) {
  NetParameter param;
  net.ToProto(&param);
  return param;
}

TYPED_TEST(NetForwardTest, PackedWeightsFollowTheLayers) {
  typedef TypeParam Dtype;
  const std::string layers = Conv("a", "data", "num_output: 19 kernel_size: 1") +
                             Conv("b", "a", "num_output: 19 group: 19 kernel_size: 3 pad: 1") +
                             Conv("c", "b", "num_output: 7 kernel_size: 3");
  this->Make(layers);
  for (Blob<Dtype>* blob : this->net_->learnable_params()) { EXPECT_FALSE(blob->data()->writable_elsewhere()); }
  NetParameter others[2];
  for (NetParameter& other : others) {
    for (Blob<Dtype>* blob : this->net_->learnable_params()) {
      const SyncedMemory::Passing passing;
      this->Fill(blob);
    }
    other = WeightsOf(*this->net_);
  }
  const auto expect_same = [&](const char* what) {
    SCOPED_TRACE(what);
    this->FillInput(5);
    this->net_->Forward();
    const auto whole = this->Read();
    this->ExpectEqual(this->Run(false), whole);
  };
  expect_same("filled");
  for (const NetParameter& other : others) {
    this->net_->CopyTrainedLayersFrom(other);
    expect_same("copied");
  }
  for (Blob<Dtype>* blob : this->net_->learnable_params()) { EXPECT_FALSE(blob->data()->writable_elsewhere()); }
  const shared_ptr<Net<Dtype>> first = this->net_;
  this->Make(layers);
  this->net_->ShareTrainedLayersWith(first.get());
  expect_same("shared");
  first->CopyTrainedLayersFrom(others[0]);
  expect_same("copied to the net that they are shared with");
  this->net_->learnable_params()[0]->mutable_cpu_data()[3] += 1;
  expect_same("written");
  Dtype* kept = this->net_->learnable_params()[3]->mutable_cpu_data();  // the bias of b
  for (int time = 0; time < 2; ++time) {
    kept[time] += 1;
    expect_same("written through a kept pointer");
  }
}

TYPED_TEST(NetForwardTest, WeightsArePackedOnce) {
  typedef TypeParam Dtype;
  Blob<Dtype> weights(9, 4, 1, 1);
  Dtype* values;
  {
    const SyncedMemory::Passing passing;
    this->Fill(&weights);
    values = weights.mutable_cpu_data();
  }
  const std::vector<shared_ptr<Blob<Dtype>>> blobs = {shared_ptr<Blob<Dtype>>(&weights, [](Blob<Dtype>*) {})};
  PackedWeightsOfLayer<Dtype> layer;
  const auto packed = layer.Get(blobs, false);
  const Dtype before = packed->TapsOf(0)[0];
  EXPECT_EQ(values[0], before);
  values[0] += 1;  // unseen: nobody may keep such a pointer
  EXPECT_EQ(packed, layer.Get(blobs, false));
  EXPECT_EQ(before, packed->TapsOf(0)[0]);
  weights.mutable_cpu_data();
  const auto again = layer.Get(blobs, false);
  EXPECT_NE(packed, again);  // who has the first one keeps it
  EXPECT_EQ(before, packed->TapsOf(0)[0]);
  EXPECT_EQ(values[0], again->TapsOf(0)[0]);
}

TYPED_TEST(NetForwardTest, WeightsOfOtherShapes) {
  this->Make(Conv("a", "data", "num_output: 9 kernel_size: 1"));
  NetParameter given = WeightsOf(*this->net_);
  given.mutable_layer(1)->set_name("b");  // a layer that the net has not
  this->net_->CopyTrainedLayersFrom(given);
  given.mutable_layer(1)->set_name("a");
  given.mutable_layer(1)->mutable_blobs(0)->mutable_shape()->set_dim(0, 6);
  given.mutable_layer(1)->mutable_blobs(0)->mutable_shape()->set_dim(1, 9);
  EXPECT_DEATH(this->net_->CopyTrainedLayersFrom(given),
               "weight blob 0 for layer a has shape 6 9 1 1 .*must have 9 6 1 1");
  given.mutable_layer(1)->mutable_blobs()->RemoveLast();
  EXPECT_DEATH(this->net_->CopyTrainedLayersFrom(given), "has 1 weight blobs for layer a, which has 2");
}

TYPED_TEST(NetForwardTest, LayersThatKnowBlocks) {
  const std::string scale = "scale_param { bias_term: true }";
  const std::string net =
      Conv("conv", "data", "num_output: 21 kernel_size: 3 pad: 1 bias_term: false") + InPlace("conv", "BatchNorm") +
      InPlace("conv", "Scale", scale) + InPlace("conv", "ReLU6") + LayerOf("BatchNorm", "conv", "norm") +
      LayerOf("Scale", "norm", "scaled", "scale_param { bias_term: false }") +
      LayerOf("Pooling", "scaled", "mean", "pooling_param { pool: AVE global_pooling: true }") +
      Conv("squeezed", "mean", "num_output: 21 kernel_size: 1") + LayerOf("Flatten", "squeezed", "flat") +
      LayerOf("Scale", "scaled flat", "gated", "scale_param { axis: 0 }") +
      LayerOf("Permute", "gated", "moved", "permute_param { order: 0 order: 2 order: 3 order: 1 }") +
      LayerOf("Permute", "gated", "turned", "permute_param { order: 0 order: 1 order: 3 order: 2 }") +
      LayerOf("Flatten", "moved", "moved_flat") + LayerOf("Flatten", "gated", "gated_flat") +
      LayerOf("Concat", "moved_flat gated_flat", "joined");
  this->Make(net);
  this->ExpectSame();
  for (const std::vector<int>& size : {std::vector<int>{5, 1}, {8, 8}, {1, 40}}) {
    this->net_->input_blobs()[0]->Reshape(3, 6, size[0], size[1]);
    this->ExpectSame();
  }
}

TYPED_TEST(NetForwardTest, GatesWithABiasOfTheirOwn) {
  this->Make(Conv("conv", "data", "num_output: 9 kernel_size: 1") +
             LayerOf("Pooling", "conv", "mean", "pooling_param { pool: AVE global_pooling: true }") +
             LayerOf("Flatten", "mean", "flat") +
             LayerOf("Scale", "conv flat", "gated", "scale_param { axis: 0 bias_term: true }"));
  this->ExpectSame();
}

TYPED_TEST(NetForwardTest, LayersThatDoNot) {
  this->Make(Conv("conv", "data", "num_output: 40 kernel_size: 3 pad: 1") +
             LayerOf("Pooling", "conv", "pooled", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }") +
             LayerOf("Deconvolution", "pooled", "large",
                     "convolution_param { num_output: 40 group: 40 kernel_size: 2 stride: 2 bias_term: false }") +
             Conv("side", "pooled", "num_output: 40 kernel_size: 2 pad: 1 stride: 2 group: 2") +
             Conv("next", "pooled", "num_output: 40 kernel_size: 1") + LayerOf("Eltwise", "next pooled", "sum") +
             LayerOf("Sigmoid", "sum", "sum") + LayerOf("Eltwise", "sum next", "both", kProduct) +
             LayerOf("Softmax", "both", "soft") + LayerOf("Power", "both", "square", "power_param { power: 2 }") +
             LayerOf("Eltwise", "square soft pooled", "three") + Conv("last", "three", "num_output: 3 kernel_size: 1"));
  this->ExpectSame();
}

TYPED_TEST(NetForwardTest, PointersOfBefore) {
  typedef TypeParam Dtype;
  // Many channels: the input is moved to blocks.
  this->Make("layer { name: 'wide' type: 'Input' top: 'wide' input_param { shape { dim: 1 dim: 70 dim: 9 dim: 9 } } }" +
             Conv("a", "wide", "num_output: 40 kernel_size: 1") + InPlace("a", "ReLU") +
             Conv("b", "a", "num_output: 17 kernel_size: 3 pad: 1") + LayerOf("HardSwish", "b", "swish"));
  Blob<Dtype>* input = this->net_->blob_by_name("wide").get();
  Dtype* values = input->mutable_cpu_data();
  Dtype* weight = this->net_->learnable_params()[0]->mutable_cpu_data();
  const Dtype* sums = this->net_->blob_by_name("b")->cpu_data();
  const Dtype* swish = this->net_->blob_by_name("swish")->cpu_data();
  const int count = this->net_->blob_by_name("b")->count();
  for (int time = 0; time < 3; ++time) {
    SCOPED_TRACE(time);
    // Written through pointers that were given before the first pass, and read through such pointers.
    this->Fill(values, input->count());
    weight[time] += 1;
    this->net_->Forward();
    const std::vector<Dtype> whole(sums, sums + count), whole_swish(swish, swish + count);
    for (int i = 0; i < this->net_->layers().size(); ++i) { this->net_->ForwardFromTo(i, i); }
    EXPECT_EQ(whole, std::vector<Dtype>(sums, sums + count));
    EXPECT_EQ(whole_swish, std::vector<Dtype>(swish, swish + count));
  }
}

TYPED_TEST(NetForwardTest, BlobsWrittenBetweenPasses) {
  typedef TypeParam Dtype;
  this->Make(Conv("a", "data", "num_output: 20 kernel_size: 1") + Conv("b", "a", "num_output: 20 kernel_size: 1") +
             Conv("c", "b", "num_output: 4 kernel_size: 1"));
  this->FillInput(5);
  this->net_->Forward();
  // A part of the net on values of one's own.
  this->Fill(this->net_->blob_by_name("b").get());
  const std::vector<Dtype> own(this->net_->blob_by_name("b")->cpu_data(),
                               this->net_->blob_by_name("b")->cpu_data() + this->net_->blob_by_name("b")->count());
  this->net_->ForwardFrom(this->net_->layers().size() - 1);
  const Blob<Dtype>& b = *this->net_->blob_by_name("b");
  EXPECT_EQ(own, std::vector<Dtype>(b.cpu_data(), b.cpu_data() + b.count()));
  const Blob<Dtype>& weights = *this->net_->learnable_params()[4];
  const Blob<Dtype>& c = *this->net_->blob_by_name("c");
  double sum = this->net_->learnable_params()[5]->cpu_data()[0];
  for (int k = 0; k < 20; ++k) { sum += static_cast<double>(weights.cpu_data()[k]) * own[k * b.count(2) + 3]; }
  EXPECT_NEAR(sum, c.cpu_data()[3], 20 * this->kNear);
}

TYPED_TEST(NetForwardTest, BackwardAfterIt) {
  typedef TypeParam Dtype;
  this->Make(Conv("conv", "data", "num_output: 9 kernel_size: 3") + InPlace("conv", "BatchNorm") +
                 InPlace("conv", "Scale", "scale_param { bias_term: true }") + InPlace("conv", "ReLU") +
                 Conv("end", "conv", "num_output: 5 kernel_size: 1"),
             TEST, true);
  this->FillInput(5);
  std::vector<Dtype> diffs[2];
  for (const bool whole : {true, false}) {  // the layers one by one leave behind what a backward pass needs
    if (whole) {
      this->net_->Forward();
    } else {
      for (int i = 0; i < this->net_->layers().size(); ++i) { this->net_->ForwardFromTo(i, i); }
    }
    this->random_.seed(6);
    Blob<Dtype>* end = this->net_->output_blobs()[0];
    this->Fill(end->mutable_cpu_diff(), end->count());
    this->net_->ClearParamDiffs();
    this->net_->Backward();
    for (const Blob<Dtype>* blob : this->net_->learnable_params()) {
      diffs[whole].insert(diffs[whole].end(), blob->cpu_diff(), blob->cpu_diff() + blob->count());
    }
    const Blob<Dtype>& data = *this->net_->input_blobs()[0];
    diffs[whole].insert(diffs[whole].end(), data.cpu_diff(), data.cpu_diff() + data.count());
  }
  EXPECT_EQ(diffs[0], diffs[1]);
  EXPECT_TRUE(std::isfinite(diffs[1][0]));
  EXPECT_NE(0, diffs[1][0]);
}

TYPED_TEST(NetForwardTest, LayersOfAnotherPhase) {
  this->Make(Conv("conv", "data", "num_output: 9 kernel_size: 3") +
             LayerOf("BatchNorm", "conv", "norm", "phase: TRAIN") +
             Conv("end", "norm", "num_output: 5 kernel_size: 1"));
  this->FillInput(5);
  // Each pass changes the running statistics, so there is one of each.
  const auto whole = [this] {
    this->net_->Forward();
    return this->Read();
  };
  const auto statistics = [this] {
    const Blob<TypeParam>& mean = *this->net_->layer_by_name("norm/BatchNorm")->blobs()[0];
    return std::vector<TypeParam>(mean.cpu_data(), mean.cpu_data() + mean.count());
  };
  const std::vector<TypeParam> before = statistics();
  const auto first = whole();
  EXPECT_NE(before, statistics());
  for (int i = 0; i < this->net_->layers().size(); ++i) { this->net_->ForwardFromTo(i, i); }
  this->ExpectEqual(this->Read(), first);
}

TYPED_TEST(NetForwardTest, ZerosWithASign) {
  typedef TypeParam Dtype;
  for (const std::string& setting :
       {"kernel_size: 3 pad: 1", "kernel_size: 5 pad: 3 stride: 2", "kernel_size: 3 pad: 4 dilation: 3"}) {
    for (const bool negative : {false, true}) {
      SCOPED_TRACE(setting);
      this->Make(Conv("conv", "data", "num_output: 6 group: 6 " + setting) +
                 LayerOf("Power", "conv", "ramp", "power_param { shift: 0 }") + LayerOf("ReLU6", "ramp", "ramp") +
                 LayerOf("Eltwise", "conv ramp", "swish", kProduct) + LayerOf("Power", "swish", "swish", kSixth) +
                 Conv("end", "conv", "num_output: 9 " + setting));
      for (Blob<Dtype>* blob : this->net_->learnable_params()) {
        Dtype* values = blob->mutable_cpu_data();
        for (int i = 0; i < blob->count(); ++i) {
          if (negative) { values[i] = -std::fabs(values[i]); }  // all products are -0
          if (blob->num_axes() == 1) { values[i] = Dtype(-0.); }
        }
      }
      this->net_->input_blobs()[0]->Reshape(1, 6, 9, 70);
      Blob<Dtype>* data = this->net_->input_blobs()[0];
      caffe_set(data->count(), Dtype(0), data->mutable_cpu_data());
      this->net_->Forward();
      const auto whole = this->Read();
      for (int i = 0; i < this->net_->layers().size(); ++i) { this->net_->ForwardFromTo(i, i); }
      this->ExpectEqual(this->Read(), whole);
    }
  }
}

TYPED_TEST(NetForwardTest, SumsOfAHardSwishWrittenOver) {
  const std::string split = "layer { name: 'split' type: 'Split' bottom: 'conv' top: 'a' top: 'b' top: 'd' }";
  for (const std::string& last : {InPlace("d", "ReLU"), InPlace("d", "Scale"), InPlace("d", "Power", kSixth)}) {
    SCOPED_TRACE(last);
    this->Make(Conv("conv", "data", "num_output: 9 kernel_size: 3") + split + LayerOf("Power", "a", "ramp", kShift) +
               InPlace("ramp", "ReLU6") + LayerOf("Eltwise", "b ramp", "swish", kProduct) +
               InPlace("swish", "Power", kSixth) + last);
    // The memory of `conv` is that of `d`, which is written last.
    for (int time = 0; time < 3; ++time) {
      this->FillInput(time);
      this->net_->Forward();
      const auto whole = this->Read();
      for (int i = 0; i < this->net_->layers().size(); ++i) { this->net_->ForwardFromTo(i, i); }
      const auto one_by_one = this->Read();
      for (const std::string& name : {"ramp", "swish", "d"}) { EXPECT_EQ(one_by_one.at(name), whole.at(name)) << name; }
    }
  }
}

TYPED_TEST(NetForwardTest, EmptyAndGrowingBlobs) {
  typedef TypeParam Dtype;
  this->Make("layer { name: 'none' type: 'Input' top: 'none' input_param { shape { dim: 0 dim: 4 } } }" +
             Conv("conv", "data", "num_output: 9 kernel_size: 1") +
             "layer { name: 'end' type: 'Silence' bottom: 'none' }");
  this->FillInput(5);
  this->net_->Forward();
  EXPECT_EQ(0, this->net_->blob_by_name("none")->count());
  // Memory of 8 images of which a pass writes one: the others are 0, as memory that nobody has written is in Caffe.
  this->Make(Conv("conv", "data", "num_output: 9 kernel_size: 1"));
  Blob<Dtype>* data = this->net_->input_blobs()[0];
  for (const int images : {8, 1}) {
    data->Reshape(images, 6, 33, 41);
    this->net_->Reshape();
  }
  this->FillInput(5);
  this->net_->Forward();
  data->Reshape(8, 6, 33, 41);
  this->net_->Reshape();
  const Blob<Dtype>& conv = *this->net_->blob_by_name("conv");
  const int first = conv.count(1);
  EXPECT_NE(0, conv.cpu_data()[0]);
  for (int i = first; i < conv.count(); ++i) { ASSERT_EQ(0, conv.cpu_data()[i]) << i; }
}

TYPED_TEST(NetForwardTest, ReadByTwoThreads) {
  typedef TypeParam Dtype;
  this->Make(Conv("conv", "data", "num_output: 40 kernel_size: 1") +
             Conv("end", "conv", "num_output: 40 kernel_size: 1"));
  const int count = this->net_->blob_by_name("end")->count();
  for (int time = 0; time < 30; ++time) {
    this->FillInput(time);
    this->net_->blob_by_name("end")->data()->Defer(nullptr, true);
    this->net_->Forward();
    std::vector<Dtype> read[2];
    const Blob<Dtype>& end = *this->net_->blob_by_name("end");
    std::thread other([&] { read[0].assign(end.cpu_data(), end.cpu_data() + count); });
    read[1].assign(end.cpu_data(), end.cpu_data() + count);
    other.join();
    ASSERT_EQ(read[0], read[1]);
  }
}

/// A layer of somebody's own: its top is its bottom, read through the pointer that it got first.
template <typename Dtype>
class KeepsPointerLayer : public Layer<Dtype> {
 public:
  explicit KeepsPointerLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override {
    top[0]->ReshapeLike(*bottom[0]);
  }

 protected:
  void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override {
    if (kept_ == nullptr) { kept_ = bottom[0]->cpu_data(); }
    std::copy(kept_, kept_ + bottom[0]->count(), top[0]->mutable_cpu_data());
  }
  void Backward_cpu(const vector<Blob<Dtype>*>&, const vector<bool>&, const vector<Blob<Dtype>*>&) override {}

 private:
  const Dtype* kept_ = nullptr;
};

TYPED_TEST(NetForwardTest, LayersThatKeepPointers) {
  typedef TypeParam Dtype;
  const auto make = [](const LayerParameter& param) {
    return shared_ptr<Layer<Dtype>>(new KeepsPointerLayer<Dtype>(param));
  };
  if (LayerRegistry<Dtype>::Registry().count("KeepsPointer") == 0) {
    LayerRegistry<Dtype>::AddCreator("KeepsPointer", make);
  }
  this->Make(Conv("conv", "data", "num_output: 9 kernel_size: 3") + LayerOf("KeepsPointer", "conv", "kept") +
             Conv("end", "kept", "num_output: 9 kernel_size: 1"));
  std::vector<Dtype> values[2];
  for (const bool whole : {true, false}) {
    for (int time = 0; time < 3; ++time) {
      this->FillInput(time);
      if (whole) {
        this->net_->Forward();
      } else {
        for (int i = 0; i < this->net_->layers().size(); ++i) { this->net_->ForwardFromTo(i, i); }
      }
      const Blob<Dtype>& kept = *this->net_->blob_by_name("kept");
      values[whole].insert(values[whole].end(), kept.cpu_data(), kept.cpu_data() + kept.count());
    }
  }
  EXPECT_EQ(values[0], values[1]);
}

/// Counts how often it is asked.
class Sevens : public DeferredValues {
 public:
  explicit Sevens(int* asked) : asked_(asked) {}
  void WriteTo(void* values) const override {
    ++*asked_;
    *static_cast<int*>(values) = 7;
  }

 private:
  int* asked_;
};

TEST(DeferredValuesTest, AreWrittenWhenAskedFor) {
  int asked = 0;
  const shared_ptr<DeferredValues> sevens(new Sevens(&asked));
  SyncedMemory memory(sizeof(int));
  memory.Defer(sevens);
  memory.WriteIfExposed();
  EXPECT_EQ(0, asked);
  EXPECT_EQ(SyncedMemory::HEAD_AT_CPU, memory.head());
  EXPECT_EQ(7, *static_cast<const int*>(memory.cpu_data()));
  EXPECT_EQ(1, asked);
  EXPECT_EQ(sevens, memory.deferred());
  *static_cast<int*>(memory.mutable_cpu_data()) = 8;
  EXPECT_EQ(nullptr, memory.deferred());
  EXPECT_EQ(8, *static_cast<const int*>(memory.cpu_data()));
  memory.Defer(sevens);
  memory.WriteIfExposed();  // since pointers were given
  EXPECT_EQ(2, asked);
  int own = 9;
  memory.set_cpu_data(&own);
  EXPECT_EQ(9, *static_cast<const int*>(memory.cpu_data()));
  memory.Defer(sevens);
  EXPECT_EQ(&own, memory.cpu_data());
  EXPECT_EQ(7, own);
}

TYPED_TEST(NetForwardTest, LayersOfOneIndex) {
  const std::string swish =
      "layer { name: 's' type: 'Power' bottom: 'conv' top: 'ramp' power_param { shift: 3 } }"
      "layer { name: 'r' type: 'ReLU6' bottom: 'ramp' top: 'ramp' }"
      "layer { name: 'p' type: 'Eltwise' bottom: 'conv' bottom: 'ramp' top: 'product' eltwise_param { operation: PROD "
      "} } layer { name: 'sixth' type: 'Power' bottom: 'product' top: 'product' power_param { scale: 0.16666667 } }";
  const std::string sum =
      "layer { name: 'other' type: 'HardSwish' bottom: 'data' top: 'other' }"
      "layer { name: 'hard' type: 'HardSigmoid' bottom: 'other' top: 'hard' }"
      "layer { name: 'sum' type: 'Eltwise' bottom: 'conv' bottom: 'hard' top: 'sum' }"
      "layer { name: 'relu' type: 'ReLU' bottom: 'sum' top: 'sum' }"
      "layer { name: 'clip' type: 'Clip' bottom: 'sum' top: 'clip' clip_param { min: -1 max: 1 } }"
      "layer { name: 'both' type: 'Power' bottom: 'clip' top: 'both' power_param { scale: 0.7 shift: 3 } }"
      "layer { name: 'square' type: 'Power' bottom: 'both' top: 'square' power_param { power: 2 } }"
      "layer { name: 'weighted' type: 'Eltwise' bottom: 'square' bottom: 'data' top: 'weighted' eltwise_param { coeff: "
      "2 coeff: -1 } } layer { name: 'end' type: 'ReLU6' bottom: 'weighted' top: 'end' }";
  for (const std::string& setting : {"num_output: 6 kernel_size: 1", "num_output: 6 group: 6 kernel_size: 3 pad: 1"}) {
    this->Make(Conv("conv", "data", setting) + swish + Conv("after", "product", "num_output: 2 kernel_size: 1"));
    this->ExpectSame();
    this->Make(Conv("conv", "data", setting) + sum);
    this->ExpectSame();
  }
  // Another size, without a call of Reshape.
  this->net_->input_blobs()[0]->Reshape(1, 6, 90, 101);
  this->ExpectSame();
  this->net_->input_blobs()[0]->Reshape(3, 6, 2, 1);
  this->ExpectSame();
}

TYPED_TEST(NetForwardTest, KeepsNanAndLoss) {
  typedef TypeParam Dtype;
  // Without learning rates, no layer needs a backward pass.
  this->Make(LayerOf("Convolution", "data", "conv",
                     "convolution_param { num_output: 6 kernel_size: 1 } param { lr_mult: 0 } param { lr_mult: 0 }") +
             InPlace("conv", "ReLU6") + "layer { name: 'end' type: 'Power' bottom: 'conv' top: 'end' loss_weight: 2 }");
  this->Fill(this->net_->input_blobs()[0]);
  Dtype loss = 0, parts = 0;
  this->net_->Forward(&loss);
  for (int i = 0; i < this->net_->layers().size(); ++i) { parts += this->net_->ForwardFromTo(i, i); }
  EXPECT_GT(loss, 0);
  EXPECT_EQ(parts, loss);
  this->net_->input_blobs()[0]->mutable_cpu_data()[7] = std::numeric_limits<Dtype>::quiet_NaN();
  this->net_->Forward();
  const Dtype* values = this->net_->blob_by_name("conv")->cpu_data();
  EXPECT_TRUE(std::isnan(values[7]));
  EXPECT_FALSE(std::isnan(values[8]));
}

TYPED_TEST(NetForwardTest, MeanOfPlanes) {
  typedef TypeParam Dtype;
  this->Make(
      "layer { name: 'mean' type: 'Pooling' bottom: 'data' top: 'mean' pooling_param { pool: AVE "
      "global_pooling: true } }");
  this->Fill(this->net_->input_blobs()[0]);
  this->net_->Forward();
  const Blob<Dtype>& data = *this->net_->input_blobs()[0];
  const int size = data.count(2);
  for (int p = 0; p < data.count(0, 2); ++p) {
    double sum = 0;
    for (int i = 0; i < size; ++i) { sum += data.cpu_data()[p * size + i]; }
    EXPECT_NEAR(sum / size, this->net_->output_blobs()[0]->cpu_data()[p], this->kNear);
  }
}

}  // namespace caffe
