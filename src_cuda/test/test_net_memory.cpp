// Whose values a whole forward pass in phase TEST (util/net_forward.cpp) reads and leaves behind: blobs that it does
// not store, pointers that were given before it, memory of two nets, weights that change.
#include <algorithm>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "caffe/util/conv_chain.hpp"
#include "caffe/util/packed_weights.hpp"
#include "net_forward_test.hpp"

namespace caffe {

template <typename Dtype>
class NetMemoryTest : public NetForwardTest<Dtype> {};

TYPED_TEST_CASE(NetMemoryTest, Numbers);

TYPED_TEST(NetMemoryTest, WhatIsNotKept) {
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

TYPED_TEST(NetMemoryTest, ConvolutionsBeforeTheResult) {
  typedef TypeParam Dtype;
  const std::string wide = "num_output: 20 kernel_size: 1", x = Conv("x", "data", wide);
  for (const std::string& from : {"x", "data"}) {  // in blocks, and as it is
    const std::string c = x + Conv("c", from, wide);
    const std::string nets[] = {c + LayerOf("Eltwise", "c x", "result"), c + LayerOf("HardSwish", "c", "result"),
                                c + LayerOf("Power", "c", "ramp", kShift) + InPlace("ramp", "ReLU6") +
                                    LayerOf("Eltwise", "c ramp", "result", kProduct) +
                                    InPlace("result", "Power", kSixth)};
    for (const std::string& net : nets) {
      SCOPED_TRACE(net);
      this->Make(net + Conv("last", "result", "num_output: 4 kernel_size: 1"));
      const Blob<Dtype>& blob = *this->net_->blob_by_name("c");
      const auto values = [&blob] { return std::vector<Dtype>(blob.cpu_data(), blob.cpu_data() + blob.count()); };
      const auto kept = [&blob] {
        return dynamic_cast<const NotKept<Dtype>*>(blob.data()->deferred().get()) == nullptr;
      };
      this->FillInput(4);
      this->net_->Forward();
      EXPECT_FALSE(kept());
      this->FillInput(9);  // another input is there when somebody asks
      const std::vector<Dtype> asked = values();
      this->FillInput(4);
      this->Pass(false);
      EXPECT_EQ(values(), asked);
      this->net_->Forward();
      EXPECT_TRUE(kept());  // for who has asked
    }
  }
}

/// Blobs of a net that are made to share memory, as some do to need less of it; not those that one convolution reads
/// and writes, which would read what it has written.
TYPED_TEST(NetMemoryTest, BlobsThatShareMemory) {
  typedef TypeParam Dtype;
  const std::string wide = "num_output: 20 kernel_size: 1", x = Conv("x", "data", wide);
  const std::string chain =
      x + Conv("a", "x", wide) + Conv("b", "a", "num_output: 20 group: 20 kernel_size: 1") + Conv("c", "b", wide);
  const std::string sum = LayerOf("Eltwise", "c x", "sum");
  const std::string swish = Conv("c", "data", wide) + LayerOf("Power", "c", "ramp", kShift) + InPlace("ramp", "ReLU6") +
                            LayerOf("Eltwise", "c ramp", "sum", kProduct) + InPlace("sum", "Power", kSixth);
  const std::string state =
      "layer { name: 'x' type: 'Input' top: 'x' input_param { shape { dim: 2 dim: 20 dim: 33 dim: 41 } } }";
  const std::vector<std::string> all[] = {
      {chain + sum, "b", "x"},
      {chain + sum, "c", "x"},
      {chain + sum, "sum", "x"},
      {chain + sum, "sum", "c"},
      {x + Conv("c", "x", wide) + sum, "sum", "x"},
      {x + Conv("c", "data", wide) + sum, "sum", "c"},
      {state + Conv("c", "data", wide) + sum, "x", "c"},
      {state + Conv("c", "data", wide) + sum, "x", "sum"},
      {swish, "ramp", "c"},
      {swish, "sum", "c"},
      {swish, "sum", "ramp"},
  };
  for (const std::vector<std::string>& one : all) {
    SCOPED_TRACE(one[0] + ", " + one[1] + " shares with " + one[2]);
    std::vector<std::vector<Dtype>> sums[2];
    for (const bool whole : {true, false}) {
      this->random_.seed(3);  // the same weights
      this->Make(one[0] + Conv("last", "sum", "num_output: 4 kernel_size: 1"));
      this->net_->blob_by_name(one[1])->ShareData(*this->net_->blob_by_name(one[2]));
      for (const int seed : {4, 5, 6}) {
        Blob<Dtype>* const input = this->net_->blob_by_name("data").get();
        this->random_.seed(seed);
        this->Fill(input);
        this->Pass(whole);
        for (const std::string& name : {"sum", "last"}) {
          const Blob<Dtype>& blob = *this->net_->blob_by_name(name);
          if (name == "sum" && seed != 6) { continue; }  // whoever reads it has it stored from then on
          sums[whole].emplace_back(blob.cpu_data(), blob.cpu_data() + blob.count());
        }
      }
    }
    EXPECT_EQ(sums[0], sums[1]);
  }
}

const char kChain[] =
    "layer { name: 'a' type: 'Convolution' bottom: 'data' top: 'a' convolution_param { num_output: 8 kernel_size: 1 } }"
    "layer { name: 'b' type: 'Convolution' bottom: 'a' top: 'b' convolution_param { num_output: 8 group: 8 "
    "kernel_size: 3 "
    "pad: 1 } }"
    "layer { name: 'c' type: 'Convolution' bottom: 'b' top: 'c' convolution_param { num_output: 8 kernel_size: 1 } }";

/// Two nets of which the second, a convolution, reads the memory of a blob of the first.
TYPED_TEST(NetMemoryTest, MemoryOfAnotherNet) {
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

TYPED_TEST(NetMemoryTest, StateOfThePassBefore) {
  typedef TypeParam Dtype;
  this->Make(
      "layer { name: 'state' type: 'Input' top: 'state' input_param { shape { dim: 2 dim: 8 dim: 33 dim: 41 } } }" +
      Conv("old", "state", "num_output: 7 kernel_size: 1") + kChain);
  this->net_->blob_by_name("state")->ShareData(*this->net_->blob_by_name("a"));
  std::vector<Dtype> old[2];
  for (const bool whole : {true, false}) {
    for (const int seed : {4, 5}) {
      this->FillInput(seed);
      this->Pass(whole);
    }
    const Blob<Dtype>& blob = *this->net_->blob_by_name("old");
    old[whole].assign(blob.cpu_data(), blob.cpu_data() + blob.count());
  }
  EXPECT_EQ(old[0], old[1]);
}

TYPED_TEST(NetMemoryTest, ValuesKeptBySomebodyElse) {
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
  this->Pass(false);
  EXPECT_EQ(kept, std::vector<Dtype>(a->cpu_data(), a->cpu_data() + a->count()));
}

TYPED_TEST(NetMemoryTest, WeightsThatAnotherNetMakes) {
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
    this->Pass(false);
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

TYPED_TEST(NetMemoryTest, PackedWeightsFollowTheLayers) {
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

TYPED_TEST(NetMemoryTest, WeightsArePackedOnce) {
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

TYPED_TEST(NetMemoryTest, WeightsOfOtherShapes) {
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

TYPED_TEST(NetMemoryTest, PointersOfBefore) {
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
    this->Pass(false);
    EXPECT_EQ(whole, std::vector<Dtype>(sums, sums + count));
    EXPECT_EQ(whole_swish, std::vector<Dtype>(swish, swish + count));
  }
}

TYPED_TEST(NetMemoryTest, BlobsWrittenBetweenPasses) {
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

TYPED_TEST(NetMemoryTest, ReadByTwoThreads) {
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

TYPED_TEST(NetMemoryTest, LayersThatKeepPointers) {
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
      this->Pass(whole);
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

}  // namespace caffe
