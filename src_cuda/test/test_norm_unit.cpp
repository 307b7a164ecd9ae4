// BatchNorm, Scale and ReLU6 that a net computes together (util/norm_unit.hpp), against the same layers one by one.
#include <algorithm>
#include <string>
#include <vector>

#include "caffe/layers/scale_layer.hpp"
#include "caffe/util/batch_norm.hpp"
#include "net_forward_test.hpp"

namespace caffe {

namespace {

/// Whether the layer's own copy of its input was left unwritten.
template <typename Dtype>
class OpenScale : public ScaleLayer<Dtype> {
 public:
  static bool KeptNoInput(Layer<Dtype>* layer) {
    auto* scale = dynamic_cast<ScaleLayer<Dtype>*>(layer);
    CHECK(scale != nullptr) << layer->layer_param().name();
    const Blob<Dtype>& input = scale->*&OpenScale::temp_;
    return input.count() > 0 && input.data()->deferred() != nullptr;
  }
};

const char kNorm[] = "batch_norm_param { eps: 0.25 moving_average_fraction: 0.875 }",
           kBias[] = "scale_param { bias_term: true }";

}  // namespace

template <typename Dtype>
class NormUnitTest : public NetForwardTest<Dtype> {
 protected:
  typedef typename NetForwardTest<Dtype>::Values Values;
  enum Way { kWhole, kOneByOne, kBackwardOneByOne, kForwardOneByOne };

  /// Layers that end in the blob `conv` or another one, behind a convolution. all: every layer has a backward pass.
  void MakeNet(const std::string& unit, const std::string& end = "conv", bool all = true,
               const std::string& convolution = "conv", const std::string& rate = "") {
    start_.clear();
    const std::string loss = "power_param { power: 2 } loss_weight: 0.5";
    this->Make(LayerOf("Convolution", "data", convolution,
                       rate + "convolution_param { num_output: 7 kernel_size: 3 bias_term: false }") +
                   unit + Conv("a", end, "num_output: 3 kernel_size: 1") +
                   Conv("b", end, "num_output: 2 kernel_size: 5") + LayerOf("Power", "a", "of_a", loss) +
                   LayerOf("Power", "b", "of_b", loss),
               TRAIN, all);
    for (const shared_ptr<Layer<Dtype>>& layer : this->net_->layers()) {
      for (const shared_ptr<Blob<Dtype>>& blob : layer->blobs()) {
        start_.emplace_back(blob->cpu_data(), blob->cpu_data() + blob->count());
      }
    }
  }

  /// Data and gradients of all blobs and of the layers' blobs after two forward passes and a backward pass.
  Values Train(const Way way) {
    Net<Dtype>& net = *this->net_;
    auto from = start_.begin();
    for (const shared_ptr<Layer<Dtype>>& layer : net.layers()) {
      for (const shared_ptr<Blob<Dtype>>& blob : layer->blobs()) {
        std::copy(from->begin(), from->end(), blob->mutable_cpu_data());
        std::fill_n(blob->mutable_cpu_diff(), blob->count(), Dtype(0.5));
        ++from;
      }
    }
    for (int i = 0; i < net.blobs().size(); ++i) {
      const std::string& name = net.blob_names()[i];
      if (name == "of_a" || name == "of_b") { continue; }  // the weight of a loss
      std::fill_n(net.blobs()[i]->mutable_cpu_diff(), net.blobs()[i]->count(), Dtype(-77));
    }
    for (const int seed : {4, 5}) {
      this->FillInput(seed);
      this->Pass(way == kWhole || way == kBackwardOneByOne);
    }
    together_ = OpenScale<Dtype>::KeptNoInput(net.layer_by_name("conv/Scale").get());
    if (way == kWhole || way == kForwardOneByOne) {
      net.Backward();
    } else {
      for (int i = net.layers().size() - 1; i >= 0; --i) { net.BackwardFromTo(i, i); }
    }
    Values values = this->Read();
    for (int i = 0; i < net.blobs().size(); ++i) {
      const Blob<Dtype>& blob = *net.blobs()[i];
      values[net.blob_names()[i] + " gradient"].assign(blob.cpu_diff(), blob.cpu_diff() + blob.count());
    }
    for (int l = 0; l < net.layers().size(); ++l) {
      for (int k = 0; k < net.layers()[l]->blobs().size(); ++k) {
        const Blob<Dtype>& blob = *net.layers()[l]->blobs()[k];
        const std::string name = net.layer_names()[l] + " " + std::to_string(k);
        values[name].assign(blob.cpu_data(), blob.cpu_data() + blob.count());
        values[name + " gradient"].assign(blob.cpu_diff(), blob.cpu_diff() + blob.count());
      }
    }
    return values;
  }

  /// Values the same digit by digit, gradients within rounding. Measured: 0.054 kNear of the largest.
  void ExpectNear(const Values& one_by_one, const Values& whole) {
    for (const auto& item : one_by_one) {
      const std::vector<Dtype>& found = whole.at(item.first);
      ASSERT_EQ(item.second.size(), found.size());
      if (item.first.find(" gradient") == std::string::npos) {
        EXPECT_EQ(item.second, found) << item.first;
        continue;
      }
      double largest = 1;
      for (const Dtype value : item.second) { largest = std::max(largest, std::abs(static_cast<double>(value))); }
      for (size_t i = 0; i < found.size(); ++i) {
        ASSERT_NEAR(item.second[i], found[i], 0.2 * this->kNear * largest) << item.first << " at " << i;
      }
    }
  }

  void ExpectTogether() {
    for (const int images : {2, 1, 3}) {
      this->net_->input_blobs()[0]->Reshape(images, 6, 20 * images, 47);  // the last is the largest so far
      const Values whole = Train(kWhole);
      EXPECT_TRUE(together_);
      const Values one_by_one = Train(kOneByOne);
      EXPECT_FALSE(together_);
      ExpectNear(one_by_one, whole);
      // Backward of a layer by itself finds what it needs.
      const Values mixed = Train(kBackwardOneByOne);
      EXPECT_TRUE(together_);
      this->ExpectEqual(one_by_one, mixed);
      // Layers that were computed one by one may have had other inputs than each other's outputs.
      this->ExpectEqual(one_by_one, Train(kForwardOneByOne));
      EXPECT_FALSE(together_);
    }
  }

  void ExpectAlone() {
    const Values whole = Train(kWhole);
    EXPECT_FALSE(together_);
    this->ExpectEqual(Train(kOneByOne), whole);
  }

  std::vector<std::vector<Dtype>> start_;
  bool together_ = false;
};

TYPED_TEST_CASE(NormUnitTest, Numbers);

TYPED_TEST(NormUnitTest, AsTheLayersOneByOne) {
  const std::string norm = InPlace("conv", "BatchNorm", kNorm), frozen = "param { lr_mult: 0 } ";
  for (const std::string& scale :
       {std::string(), std::string(kBias), "scale_param { bias_term: true axis: -3 }" + frozen,
        kBias + (" param { lr_mult: 1 } " + frozen), frozen + frozen + kBias}) {
    for (const std::string& end : {std::string(), InPlace("conv", "ReLU6"), InPlace("conv", "ReLU"),
                                   InPlace("conv", "ReLU6", "relu6_param { negative_slope: 0.25 threshold: 0.5 }"),
                                   InPlace("conv", "ReLU6") + InPlace("conv", "Power", "power_param { scale: 2 }")}) {
      for (const bool all : {false, true}) {
        SCOPED_TRACE(scale + end + std::to_string(all));
        this->MakeNet(norm + InPlace("conv", "Scale", scale) + end, "conv", all);
        this->ExpectTogether();
      }
    }
  }
  // The next layer's top is another blob.
  this->MakeNet(norm + InPlace("conv", "Scale", kBias) + LayerOf("ReLU6", "conv", "other"), "other");
  this->ExpectTogether();
}

TYPED_TEST(NormUnitTest, WhatIsNotOne) {
  const std::string norm = InPlace("conv", "BatchNorm", kNorm), scale = InPlace("conv", "Scale", kBias);
  for (const std::string& unit : {InPlace("conv", "BatchNorm", "batch_norm_param { use_global_stats: true }") + scale,
                                  norm + InPlace("conv", "ReLU6") + scale, scale + norm,
                                  norm + InPlace("conv", "Scale", "scale_param { axis: 0 num_axes: 2 }"),
                                  norm + InPlace("conv", "Scale", "scale_param { axis: 3 }")}) {
    SCOPED_TRACE(unit);
    this->MakeNet(unit);
    this->ExpectAlone();
  }
  this->MakeNet(LayerOf("BatchNorm", "first", "conv", kNorm) + scale, "conv", true, "first");
  this->ExpectAlone();
}

TYPED_TEST(NormUnitTest, BlobsInTheText) {
  // More than the settings name: the layer does not use the second, or the second of three.
  const std::string values = " shape { dim: 7 } data: 1 data: 2 data: 3 data: 4 data: 5 data: 6 data: 7 } ";
  for (const std::string& bias : {"", " blobs {"}) {
    this->MakeNet(InPlace("conv", "BatchNorm", kNorm) +
                  InPlace("conv", "Scale",
                          "blobs {" + values + "blobs {" + values +
                              (bias.empty() ? "" : bias + values + "scale_param { bias_term: true }")));
    this->ExpectAlone();
  }
}

TYPED_TEST(NormUnitTest, BatchNormByItselfAfterwards) {
  // Scale's input is still what it was.
  this->MakeNet(InPlace("conv", "BatchNorm", kNorm) + InPlace("conv", "Scale", kBias) + InPlace("conv", "ReLU6"));
  Net<TypeParam>& net = *this->net_;
  std::vector<std::vector<TypeParam>> gradients;
  const Blob<TypeParam>& scale = *net.layer_by_name("conv/Scale")->blobs()[0];
  for (const bool whole : {false, true}) {
    this->Train(whole ? TestFixture::kWhole : TestFixture::kOneByOne);
    net.ClearParamDiffs();
    this->Fill(net.input_blobs()[0]);
    net.ForwardFromTo(0, 2);
    net.Backward();
    gradients.emplace_back(scale.cpu_diff(), scale.cpu_diff() + scale.count());
  }
  EXPECT_EQ(gradients[0], gradients[1]);
}

TYPED_TEST(NormUnitTest, TermsThatCancel) {
  // A channel of one value: its gradient is 0, and nothing of the rounding of its terms is left.
  this->MakeNet(InPlace("conv", "BatchNorm", kNorm) + InPlace("conv", "Scale", kBias));
  this->net_->input_blobs()[0]->Reshape(1, 6, 7, 7);
  this->net_->Reshape();
  this->net_->blob_by_name("conv")->Reshape(1, 7, 1, 1);
  Net<TypeParam>& net = *this->net_;
  this->Fill(net.blob_by_name("conv").get());
  const int scale = 3;
  ASSERT_EQ(std::string("conv/Scale"), net.layer_names()[scale]);
  net.ForwardFromTo(2, scale);
  this->Fill(net.blob_by_name("conv")->mutable_cpu_diff(), 7);
  net.BackwardFromTo(scale, 2);
  for (int c = 0; c < 7; ++c) { EXPECT_EQ(0, net.blob_by_name("conv")->cpu_diff()[c]) << c; }
}

TYPED_TEST(NormUnitTest, NoNewMemory) {
  typedef TypeParam Dtype;
  this->MakeNet(InPlace("conv", "BatchNorm", kNorm) + InPlace("conv", "Scale", kBias));
  auto* norm = dynamic_cast<BatchNormLayer<Dtype>*>(this->net_->layer_by_name("conv/BatchNorm").get());
  ASSERT_NE(nullptr, norm);
  std::vector<const SyncedMemory*> used;
  for (int pass = 0; pass < 3; ++pass) {
    this->net_->Forward();
    this->net_->Backward();
    used.push_back(OpenBatchNorm<Dtype>::Parts(norm).normalised->data().get());
  }
  EXPECT_EQ(used, std::vector<const SyncedMemory*>(3, used[0]));
}

TYPED_TEST(NormUnitTest, NoGradientIsAskedFor) {
  // Of the blob: the convolution learns nothing. The Scale does, and gets the same gradients.
  this->MakeNet(InPlace("conv", "BatchNorm", kNorm) + InPlace("conv", "Scale", kBias) + InPlace("conv", "ReLU6"),
                "conv", false, "conv", "param { lr_mult: 0 } ");
  const auto whole = this->Train(TestFixture::kWhole), one_by_one = this->Train(TestFixture::kOneByOne);
  this->ExpectEqual(one_by_one, whole);
}

TYPED_TEST(NormUnitTest, PartsOfAPass) {
  this->MakeNet(InPlace("conv", "BatchNorm", kNorm) + InPlace("conv", "Scale", kBias) + InPlace("conv", "ReLU6"));
  Net<TypeParam>& net = *this->net_;
  const auto one_by_one = this->Train(TestFixture::kOneByOne);
  const int end = net.layers().size() - 1, norm = 2;
  ASSERT_EQ(std::string("conv/BatchNorm"), net.layer_names()[norm]);
  for (const int cut : {norm, norm + 1, norm + 2, norm + 3}) {
    SCOPED_TRACE(cut);
    this->FillInput(5);
    net.ForwardFromTo(0, cut - 1);
    net.ForwardFromTo(cut, end);
    const auto values = this->Read();
    for (const std::string& name : {"conv", "a", "b"}) { EXPECT_EQ(one_by_one.at(name), values.at(name)) << name; }
    net.BackwardFromTo(end, cut);
    net.BackwardFromTo(cut - 1, 0);
    const Blob<TypeParam>& data = *net.input_blobs()[0];  // gradients of some 200; measured: 3.1 kNear
    const auto& wanted = one_by_one.at("data gradient");
    for (int i = 0; i < data.count(); ++i) { ASSERT_NEAR(wanted[i], data.cpu_diff()[i], 10 * this->kNear) << i; }
  }
}

}  // namespace caffe
