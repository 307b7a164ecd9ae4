// BatchNorm, Scale and ReLU6 that a net computes together (util/norm_unit.hpp), against the same layers one by one.
#include <algorithm>
#include <string>
#include <vector>

#include "caffe/layers/scale_layer.hpp"
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
  enum Way { kWhole, kOneByOne, kBackwardOneByOne };

  /// Layers that end in the blob `conv`, behind a convolution.
  void MakeNet(const std::string& unit, const std::string& convolution = "conv") {
    this->Make(Conv(convolution, "data", "num_output: 7 kernel_size: 3 bias_term: false") + unit +
                   Conv("a", "conv", "num_output: 3 kernel_size: 1") +
                   Conv("b", "conv", "num_output: 2 kernel_size: 5"),
               TRAIN, true);
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
    for (const int seed : {4, 5}) {
      this->FillInput(seed);
      this->Pass(way != kOneByOne);
    }
    for (const std::string& name : {"a", "b"}) {
      Blob<Dtype>* top = net.blob_by_name(name).get();
      this->Fill(top->mutable_cpu_diff(), top->count());
    }
    together_ = OpenScale<Dtype>::KeptNoInput(net.layer_by_name("conv/Scale").get());
    if (way == kWhole) {
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

  /// Values the same digit by digit, gradients within rounding.
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
        ASSERT_NEAR(item.second[i], found[i], 2 * this->kNear * largest) << item.first << " at " << i;
      }
    }
  }

  void ExpectTogether(const std::string& unit) {
    SCOPED_TRACE(unit);
    start_.clear();
    MakeNet(unit);
    for (const int images : {2, 1, 3}) {
      this->net_->input_blobs()[0]->Reshape(images, 6, 10 * images, 17);
      const Values one_by_one = Train(kOneByOne);
      EXPECT_FALSE(together_);
      const Values whole = Train(kWhole);
      EXPECT_TRUE(together_);
      ExpectNear(one_by_one, whole);
      // Backward of a layer by itself finds what it needs.
      const Values mixed = Train(kBackwardOneByOne);
      EXPECT_TRUE(together_);
      this->ExpectEqual(one_by_one, mixed);
    }
  }

  void ExpectAlone(const std::string& unit, const std::string& convolution = "conv") {
    SCOPED_TRACE(unit);
    start_.clear();
    MakeNet(unit, convolution);
    const Values one_by_one = Train(kOneByOne), whole = Train(kWhole);
    EXPECT_FALSE(together_);
    this->ExpectEqual(one_by_one, whole);
  }

  std::vector<std::vector<Dtype>> start_;
  bool together_ = false;
};

TYPED_TEST_CASE(NormUnitTest, Numbers);

TYPED_TEST(NormUnitTest, AsTheLayersOneByOne) {
  const std::string norm = InPlace("conv", "BatchNorm", kNorm);
  for (const std::string& scale :
       {"", kBias, "scale_param { bias_term: true axis: -3 }", "param { lr_mult: 0 } scale_param { bias_term: true }",
        "param { lr_mult: 1 } param { lr_mult: 0 } scale_param { bias_term: true }"}) {
    for (const std::string& end : {std::string(), InPlace("conv", "ReLU6"), InPlace("conv", "ReLU"),
                                   InPlace("conv", "ReLU6", "relu6_param { negative_slope: 0.25 threshold: 0.5 }"),
                                   InPlace("conv", "ReLU6") + InPlace("conv", "Power", "power_param { scale: 2 }")}) {
      this->ExpectTogether(norm + InPlace("conv", "Scale", scale) + end);
    }
  }
}

TYPED_TEST(NormUnitTest, WhatIsNotOne) {
  const std::string norm = InPlace("conv", "BatchNorm", kNorm), scale = InPlace("conv", "Scale", kBias);
  this->ExpectAlone(InPlace("conv", "BatchNorm", "batch_norm_param { use_global_stats: true }") + scale);
  this->ExpectAlone(norm + InPlace("conv", "ReLU6") + scale);
  this->ExpectAlone(norm + InPlace("conv", "Scale", "scale_param { axis: 0 num_axes: 2 }"));
  this->ExpectAlone(scale + norm);
  this->ExpectAlone(LayerOf("BatchNorm", "first", "conv", kNorm) + scale, "first");
}

TYPED_TEST(NormUnitTest, PartsOfAPass) {
  const std::string unit =
      InPlace("conv", "BatchNorm", kNorm) + InPlace("conv", "Scale", kBias) + InPlace("conv", "ReLU6");
  this->MakeNet(unit);
  Net<TypeParam>& net = *this->net_;
  const auto one_by_one = this->Train(TestFixture::kOneByOne);
  const int count = net.layers().size();
  const int norm = 2;
  ASSERT_EQ(std::string("conv/BatchNorm"), net.layer_names()[norm]);
  for (const int cut : {norm, norm + 1, norm + 2, norm + 3}) {
    SCOPED_TRACE(cut);
    for (const int seed : {4, 5}) {
      this->FillInput(seed);
      net.ForwardFromTo(0, cut - 1);
      net.ForwardFromTo(cut, count - 1);
    }
    const auto values = this->Read();
    for (const std::string& name : {"conv", "a", "b"}) { EXPECT_EQ(one_by_one.at(name), values.at(name)) << name; }
  }
}

}  // namespace caffe
