// A whole forward pass in phase TEST, which takes layers together (util/net_forward.cpp), against the same layers one
// by one: every blob, digit by digit.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "caffe/net.hpp"
#include "cpu_layers_test.hpp"

namespace caffe {

template <typename Dtype>
class NetForwardTest : public CpuLayersTest<Dtype> {
 protected:
  void Make(const std::string& layers, Phase phase = TEST) {
    NetParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString(
        "layer { name: 'data' type: 'Input' top: 'data' input_param { shape { dim: 2 dim: 6 dim: 33 dim: 41 } } }" +
            layers,
        &param))
        << layers;
    param.mutable_state()->set_phase(phase);
    net_.reset(new Net<Dtype>(param));
    for (Blob<Dtype>* blob : net_->learnable_params()) { this->Fill(blob); }
  }

  typedef std::map<std::string, std::vector<Dtype>> Values;

  /// The values of all blobs after a pass, which were spoilt before it.
  Values Run(const bool whole) {
    for (const shared_ptr<Blob<Dtype>>& blob : net_->blobs()) {
      Dtype* to = blob->mutable_cpu_data();
      std::fill(to, to + blob->count(), Dtype(-77));
    }
    this->random_.seed(5);
    this->Fill(net_->input_blobs()[0]);
    const int last = net_->layers().size() - 1;
    if (whole) {
      net_->Forward();
    } else {
      for (int i = 0; i <= last; ++i) { net_->ForwardFromTo(i, i); }
    }
    Values values;
    for (int i = 0; i < net_->blobs().size(); ++i) {
      const Blob<Dtype>& blob = *net_->blobs()[i];
      values[net_->blob_names()[i]].assign(blob.cpu_data(), blob.cpu_data() + blob.count());
    }
    return values;
  }

  void ExpectSame() {
    const Values one_by_one = Run(false), whole = Run(true);
    for (const auto& item : one_by_one) {
      const std::vector<Dtype>& other = whole.at(item.first);
      ASSERT_EQ(item.second.size(), other.size());
      EXPECT_EQ(0, std::memcmp(item.second.data(), other.data(), other.size() * sizeof(Dtype))) << item.first;
    }
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

TYPED_TEST(NetForwardTest, ActivationsAfterConvolutions) {
  const std::string settings[] = {"num_output: 19 kernel_size: 1",
                                  "num_output: 70 kernel_size: 1 bias_term: false",
                                  "num_output: 10 kernel_size: 4 pad: 1 stride: 2",
                                  "num_output: 8 kernel_size: 3 group: 2 tf_pad: SAME",
                                  "num_output: 6 group: 6 kernel_size: 3 pad: 1",
                                  "num_output: 6 group: 6 kernel_size: 4 pad: 1 stride: 2",
                                  "num_output: 6 group: 6 kernel_size: 7 pad: 3 stride: 3",
                                  "num_output: 5 kernel_h: 33 kernel_w: 41"};
  const std::string activations[] = {InPlace("conv", "ReLU6"),
                                     InPlace("conv", "ReLU"),
                                     InPlace("conv", "Clip", "clip_param { min: -0.5 max: 0.25 }"),
                                     InPlace("conv", "ReLU6", "relu6_param { negative_slope: 0.5 }"),
                                     InPlace("conv", "ReLU", "relu_param { negative_slope: 0.1 }"),
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

TYPED_TEST(NetForwardTest, ThreeConvolutionsInRows) {
  // The map between the first two holds more than a megabyte, so rows of all three are computed together
  // (conv_rows.hpp).
  const std::string firsts[] = {"num_output: 24 kernel_size: 1", "num_output: 24 kernel_size: 3 pad: 1",
                                "num_output: 24 kernel_size: 1 bias_term: false"};
  const std::string depthwise[] = {"kernel_size: 3 pad: 1",
                                   "kernel_size: 4 pad: 1 stride: 2",
                                   "kernel_size: 5 stride: 2 tf_pad: SAME",
                                   "kernel_size: 2 stride: 2",
                                   "kernel_size: 3 pad: 2 dilation: 2 bias_term: false",
                                   "kernel_size: 1 stride: 3"};
  for (const std::string& first : firsts) {
    for (const std::string& second : depthwise) {
      SCOPED_TRACE(first + ", " + second);
      this->Make(Conv("a", "data", first) + InPlace("a", "ReLU6") +
                 Conv("b", "a", "num_output: 24 group: 24 " + second) + InPlace("b", "ReLU") +
                 Conv("c", "b", "num_output: 9 kernel_size: 1"));
      for (const int width : {160, 131}) {
        this->net_->input_blobs()[0]->Reshape(2, 6, 120, width);
        this->ExpectSame();
      }
    }
  }
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
  this->Make(Conv("conv", "data", "num_output: 6 kernel_size: 1") + InPlace("conv", "ReLU6") +
             "layer { name: 'end' type: 'Power' bottom: 'conv' top: 'end' loss_weight: 2 }");
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
