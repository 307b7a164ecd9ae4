// A whole forward pass in phase TEST, which keeps maps in blocks of channels and takes layers together
// (util/net_forward.cpp), against the same layers one by one: every blob, digit by digit.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "net_forward_test.hpp"

namespace caffe {

TYPED_TEST_CASE(NetForwardTest, Numbers);

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
      // In place of one of the tops of a Split, whose memory is that of the sums.
      "layer { name: 'split' type: 'Split' bottom: 'conv' top: 'a' top: 'b' }" + InPlace("a", "Power", kShift) +
          InPlace("a", "ReLU6") + LayerOf("Eltwise", "b a", "swish", kProduct) + sixth,
      // Another layer reads the sums.
      LayerOf("HardSwish", "conv", "swish") + LayerOf("Power", "conv", "half", "power_param { scale: 0.5 }"),
      ramp + LayerOf("Eltwise", "conv ramp", "swish", kProduct) + sixth + LayerOf("Sigmoid", "conv", "other"),
  };
  for (const std::string& kind : kinds) {
    for (const std::string& setting :
         {"num_output: 6 kernel_size: 1", "num_output: 6 group: 6 kernel_size: 3 pad: 1"}) {
      SCOPED_TRACE(kind);
      const std::string net =
          Conv("conv", "data", setting) + kind + Conv("after", "swish", "num_output: 2 kernel_size: 1");
      this->Make(net);
      this->FillInput(5);
      this->net_->Forward();
      const auto first_pass = this->Read();  // in which the tops of a Split get their memory
      this->ExpectEqual(this->Run(false), first_pass);
      this->Make(net);
      this->ExpectSame();
    }
  }
}

TYPED_TEST(NetForwardTest, InPlaceBeforeASumWithTheInput) {
  for (const std::string& layer : {InPlace("c", "HardSigmoid"), InPlace("c", "Power", kSixth), InPlace("c", "ReLU6")}) {
    for (const std::string& bottoms : {"data c", "c data"}) {
      SCOPED_TRACE(layer + ", " + bottoms);
      this->Make(Conv("c", "data", "num_output: 6 kernel_size: 1") + layer + LayerOf("Eltwise", bottoms, "sum") +
                 LayerOf("TanH", "c", "tanh"));
      this->ExpectSame();
    }
  }
}

TYPED_TEST(NetForwardTest, ResidualBlocks) {
  const std::string from = Conv("x", "data", "num_output: 20 kernel_size: 1"), wide = "num_output: 20 kernel_size: 1",
                    deep = "num_output: 20 group: 20 kernel_size: 3 pad: 1";
  const std::string chain = from + Conv("a", "x", "num_output: 33 kernel_size: 1") + InPlace("a", "ReLU6") +
                            Conv("b", "a", "num_output: 33 group: 33 kernel_size: 3 pad: 1") + InPlace("b", "ReLU6") +
                            Conv("c", "b", wide);
  const std::string swish = LayerOf("Power", "c", "ramp", kShift) + InPlace("ramp", "ReLU6") +
                            LayerOf("Eltwise", "c ramp", "swish", kProduct) + InPlace("swish", "Power", kSixth);
  const std::string nets[] = {
      chain + LayerOf("Eltwise", "x c", "sum"),
      chain + LayerOf("Eltwise", "c x", "sum", "eltwise_param { operation: SUM coeff: [1, 1] }"),
      from + Conv("c", "x", wide) + LayerOf("Eltwise", "c x", "sum"),
      Conv("x", "data", wide) + Conv("c", "data", "num_output: 20 kernel_size: 3 pad: 1") +
          LayerOf("Eltwise", "c x", "sum"),
      // Two in a row, in which the first sum is read twice.
      chain + LayerOf("Eltwise", "x c", "first") + Conv("d", "first", wide) + LayerOf("Eltwise", "first d", "sum"),
      // What looks like one, and is not, or not of plain sums.
      chain + LayerOf("Eltwise", "x c", "sum", "eltwise_param { coeff: [1, 2] }"),
      chain + LayerOf("Eltwise", "x c", "sum", kProduct),
      chain + LayerOf("Eltwise", "x c", "sum", "eltwise_param { operation: MAX }"),
      chain + LayerOf("Eltwise", "x c x", "sum"),
      chain + LayerOf("Eltwise", "c c", "sum"),
      chain + InPlace("c", "ReLU6") + LayerOf("Eltwise", "x c", "sum"),
      chain + InPlace("c", "HardSwish") + LayerOf("Eltwise", "x c", "sum"),
      chain + LayerOf("HardSwish", "c", "swish") + LayerOf("Eltwise", "x swish", "sum"),
      chain + swish + LayerOf("Eltwise", "x swish", "sum"),
      from + Conv("c", "x", deep) + LayerOf("Eltwise", "x c", "sum"),
      from + Conv("a", "x", wide) + Conv("c", "a", deep) + LayerOf("Eltwise", "x c", "sum"),
      chain + LayerOf("Power", "c", "ramp", kShift) + InPlace("ramp", "Clip", "clip_param { min: -inf max: inf }") +
          LayerOf("Eltwise", "c ramp", "swish", kProduct) + InPlace("swish", "Power", kSixth) +
          LayerOf("Eltwise", "x swish", "sum"),
      // The other map is not in blocks; the first is not there yet, either.
      Conv("x", "data", "num_output: 33 kernel_h: 1 kernel_w: 9") +
          LayerOf("Permute", "x", "turned", "permute_param { order: [0, 2, 3, 1] }") +
          Conv("c", "x", "num_output: 33 kernel_size: 1") + LayerOf("Eltwise", "turned c", "sum"),
      from + LayerOf("Pooling", "x", "pooled", "pooling_param { kernel_size: 3 pad: 1 }") + Conv("c", "x", wide) +
          LayerOf("Eltwise", "pooled c", "sum"),
  };
  for (int i = 0; i < std::end(nets) - std::begin(nets); ++i) {
    SCOPED_TRACE(i);
    this->Make(nets[i] + Conv("after", "sum", "num_output: 9 kernel_size: 1"));
    for (const int images : {1, 3}) {
      this->net_->input_blobs()[0]->Reshape(images, 6, 33, 41);
      this->ExpectSame();
    }
  }
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

TYPED_TEST(NetForwardTest, BackwardAfterIt) {
  typedef TypeParam Dtype;
  this->Make(Conv("conv", "data", "num_output: 9 kernel_size: 3") + InPlace("conv", "BatchNorm") +
                 InPlace("conv", "Scale", "scale_param { bias_term: true }") + InPlace("conv", "ReLU") +
                 Conv("end", "conv", "num_output: 5 kernel_size: 1"),
             TEST, true);
  this->FillInput(5);
  std::vector<Dtype> diffs[2];
  for (const bool whole : {true, false}) {  // the layers one by one leave behind what a backward pass needs
    this->Pass(whole);
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
  this->Pass(false);
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
      this->Pass(false);
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
      this->Pass(false);
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

TYPED_TEST(NetForwardTest, ScaleOfAllChannels) {
  // One factor and one bias, not one of each channel.
  this->Make(Conv("conv", "data", "num_output: 16 kernel_size: 1") +
             InPlace("conv", "Scale", "scale_param { num_axes: 0 bias_term: true }"));
  this->ExpectSame();
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
