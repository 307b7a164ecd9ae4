// BatchNorm, Scale, Eltwise, Permute, Concat, Slice and Sigmoid on the CPU, the matrix products and the threads,
// against plain loops.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/util/cpu_gemm.hpp"
#include "caffe/util/parallel.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace caffe {

namespace {

template <typename Dtype>
shared_ptr<Layer<Dtype>> Make(const std::string& text, Phase phase = TRAIN) {
  LayerParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(text, &param)) << text;
  param.set_phase(phase);
  return LayerRegistry<Dtype>::CreateLayer(param);
}

}  // namespace

template <typename Dtype>
class CpuLayersTest : public ::testing::Test {
 protected:
  CpuLayersTest() { Caffe::set_mode(Caffe::CPU); }

  int Among(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  void Fill(Dtype* values, int count) {
    std::normal_distribution<double> normal;
    for (int i = 0; i < count; ++i) { values[i] = static_cast<Dtype>(normal(random_)); }
  }

  void Fill(Blob<Dtype>* blob) {
    Fill(blob->mutable_cpu_data(), blob->count());
    Fill(blob->mutable_cpu_diff(), blob->count());
  }

  static constexpr double kNear = sizeof(Dtype) == 4 ? 1e-5 : 1e-13;

  std::mt19937 random_{11};
};

typedef ::testing::Types<float, double> Numbers;
TYPED_TEST_CASE(CpuLayersTest, Numbers);

TYPED_TEST(CpuLayersTest, ParallelForTakesEachOnce) {
  const int before = ParallelThreads();
  for (const int threads : {1, 2, 4}) {
    SetParallelThreads(threads);
    EXPECT_EQ(threads, ParallelThreads());
    for (const int n : {0, 1, 7, 1000}) {
      for (const int grain : {-1, 1, 3, 5000}) {
        std::vector<std::atomic<int>> taken(n);
        ParallelFor(n, grain, [&](int begin, int end) {
          ParallelFor(2, 1, [&](int, int) {});  // from inside: runs here
          for (int i = begin; i < end; ++i) { ++taken[i]; }
        });
        for (int i = 0; i < n; ++i) { EXPECT_EQ(1, taken[i]); }
      }
    }
  }
  // From several threads at once.
  std::atomic<int> sum(0);
  std::vector<std::thread> callers;
  for (int t = 0; t < 3; ++t) {
    callers.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        ParallelFor(10, 1, [&](int begin, int end) { sum += end - begin; });
      }
    });
  }
  for (std::thread& caller : callers) { caller.join(); }
  EXPECT_EQ(6000, sum);
  SetParallelThreads(before);
}

TYPED_TEST(CpuLayersTest, ProductsAgainstLoops) {
  typedef TypeParam Dtype;
  for (int round = 0; round < 120; ++round) {
    const bool wide = round % 3 == 0;
    const int M = this->Among(1, 70), N = this->Among(1, wide ? 900 : 120),
              K = this->Among(1, round % 5 == 0 ? 3000 : 90);
    SCOPED_TRACE(std::to_string(M) + " x " + std::to_string(N) + " x " + std::to_string(K));
    std::vector<Dtype> a(M * K), b(K * N), bias(M), c(M * N);
    this->Fill(a.data(), a.size());
    this->Fill(b.data(), b.size());
    this->Fill(bias.data(), M);
    this->Fill(c.data(), c.size());
    for (int way = 0; way < 3; ++way) {  // A B + bias, C + A^T B, C + A B^T
      std::vector<Dtype> got = c;
      if (way == 0) {
        CpuGemm(false, M, N, K, a.data(), b.data(), bias.data(), false, got.data());
      } else if (way == 1) {
        CpuGemm<Dtype>(true, M, N, K, a.data(), b.data(), nullptr, true, got.data());
      } else {
        CpuGemmTransposed(M, N, K, a.data(), b.data(), got.data());
      }
      double worst = 0;
      for (int i = 0; i < M; ++i) {
        for (int j = 0; j < N; ++j) {
          double wanted = way == 0 ? bias[i] : c[i * N + j];
          for (int k = 0; k < K; ++k) {
            wanted +=
                static_cast<double>(way == 1 ? a[k * M + i] : a[i * K + k]) * (way == 2 ? b[j * K + k] : b[k * N + j]);
          }
          worst = std::max(worst, std::fabs(wanted - got[i * N + j]));
        }
      }
      EXPECT_LE(worst, this->kNear * std::sqrt(K)) << "way " << way;
    }
  }
}

TYPED_TEST(CpuLayersTest, BatchNormAgainstLoops) {
  typedef TypeParam Dtype;
  for (int round = 0; round < 20; ++round) {
    const int num = this->Among(1, 5), channels = this->Among(1, 9), height = this->Among(1, 12),
              width = this->Among(1, 23);
    const bool in_place = round % 2 == 0;
    Blob<Dtype> bottom(num, channels, height, width), other;
    this->Fill(&bottom);
    const std::vector<Dtype> x(bottom.cpu_data(), bottom.cpu_data() + bottom.count());
    Blob<Dtype>& top = in_place ? bottom : other;
    const vector<Blob<Dtype>*> bottoms(1, &bottom), tops(1, &top);
    shared_ptr<Layer<Dtype>> layer =
        Make<Dtype>("type: 'BatchNorm' batch_norm_param { eps: 0.25 moving_average_fraction: 0.875 }");
    layer->SetUp(bottoms, tops);
    for (int pass = 0; pass < 2; ++pass) {
      std::copy(x.begin(), x.end(), bottom.mutable_cpu_data());
      layer->Forward(bottoms, tops);
    }
    this->Fill(top.mutable_cpu_diff(), top.count());
    const std::vector<Dtype> dy(top.cpu_diff(), top.cpu_diff() + top.count());
    const std::vector<Dtype> y(top.cpu_data(), top.cpu_data() + top.count());
    layer->Backward(tops, vector<bool>(1, true), bottoms);
    EXPECT_NEAR(1.875, layer->blobs()[2]->cpu_data()[0], 1e-6);
    const int size = height * width;
    const double count = num * size;
    for (int c = 0; c < channels; ++c) {
      const auto sum = [&](const std::function<double(int)>& of) {
        double total = 0;
        for (int n = 0; n < num; ++n) {
          for (int i = 0; i < size; ++i) { total += of((n * channels + c) * size + i); }
        }
        return total;
      };
      const double mean = sum([&](int i) { return x[i]; }) / count;
      const double variance = sum([&](int i) { return (x[i] - mean) * (x[i] - mean); }) / count;
      const double deviation = std::sqrt(variance + 0.25);
      EXPECT_NEAR(1.875 * mean, layer->blobs()[0]->cpu_data()[c], this->kNear);
      EXPECT_NEAR(1.875 * variance * (count > 1 ? count / (count - 1) : 1), layer->blobs()[1]->cpu_data()[c],
                  2 * this->kNear);
      const double slope = sum([&](int i) { return dy[i] * (x[i] - mean) / deviation; }) / count;
      const double level = sum([&](int i) { return dy[i]; }) / count;
      for (int n = 0; n < num; ++n) {
        for (int i = (n * channels + c) * size; i < (n * channels + c + 1) * size; ++i) {
          const double wanted = (x[i] - mean) / deviation;
          EXPECT_NEAR(wanted, y[i], this->kNear);
          EXPECT_NEAR((dy[i] - level - slope * wanted) / deviation, bottom.cpu_diff()[i], 10 * this->kNear);
        }
      }
    }
  }
}

TYPED_TEST(CpuLayersTest, BatchNormWithStoredStatistics) {
  typedef TypeParam Dtype;
  Blob<Dtype> bottom(2, 3, 4, 5), top;
  this->Fill(&bottom);
  const vector<Blob<Dtype>*> bottoms(1, &bottom), tops(1, &top);
  shared_ptr<Layer<Dtype>> layer = Make<Dtype>("type: 'BatchNorm' batch_norm_param { eps: 0.5 }", TEST);
  layer->SetUp(bottoms, tops);
  for (const double weight : {4., 0.}) {  // 0: both count as 0
    for (int c = 0; c < 3; ++c) {
      layer->blobs()[0]->mutable_cpu_data()[c] = c - 1;
      layer->blobs()[1]->mutable_cpu_data()[c] = c + 1;
    }
    layer->blobs()[2]->mutable_cpu_data()[0] = weight;
    layer->Forward(bottoms, tops);
    this->Fill(top.mutable_cpu_diff(), top.count());
    layer->Backward(tops, vector<bool>(1, true), bottoms);
    for (int i = 0; i < bottom.count(); ++i) {
      const int c = i / 20 % 3;
      const double mean = weight == 0 ? 0 : (c - 1) / weight, variance = weight == 0 ? 0 : (c + 1) / weight;
      EXPECT_NEAR((bottom.cpu_data()[i] - mean) / std::sqrt(variance + 0.5), top.cpu_data()[i], this->kNear);
      EXPECT_NEAR(top.cpu_diff()[i] / std::sqrt(variance + 0.5), bottom.cpu_diff()[i], this->kNear);
    }
    EXPECT_EQ(Dtype(weight), layer->blobs()[2]->cpu_data()[0]);
  }
}

TYPED_TEST(CpuLayersTest, BatchNormGradient) {
  typedef TypeParam Dtype;
  Blob<Dtype> bottom(3, 2, 3, 4), top;
  this->Fill(&bottom);
  shared_ptr<Layer<Dtype>> layer = Make<Dtype>("type: 'BatchNorm'");
  GradientChecker<Dtype> checker(1e-2, 1e-3);
  checker.CheckGradientExhaustive(layer.get(), vector<Blob<Dtype>*>(1, &bottom), vector<Blob<Dtype>*>(1, &top));
}

TYPED_TEST(CpuLayersTest, ScaleAgainstLoops) {
  typedef TypeParam Dtype;
  struct Case {
    vector<int> bottom, scale;
    int axis;
  };
  const Case cases[] = {{{3, 4, 5, 7}, {4}, 1}, {{2, 3, 1, 1}, {3}, 1},    {{2, 3, 4, 5}, {2, 3}, 0},
                        {{4, 3, 6}, {6}, 2},    {{2, 3, 4}, {2, 3, 4}, 0}, {{5, 40}, {40}, 1},
                        {{2, 3, 4, 5}, {}, 0},  {{1, 65, 33, 31}, {65}, 1}};
  for (const Case& at : cases) {
    for (int way = 0; way < 4; ++way) {  // with a learned scale: in place or not; with a second bottom: bias or not
      const bool learned = way < 2, in_place = way == 1, biased = way != 2;
      std::ostringstream text;
      text << "type: 'Scale' scale_param { axis: " << at.axis << " bias_term: " << (biased ? "true" : "false");
      if (learned) { text << " num_axes: " << at.scale.size(); }
      text << " filler { type: 'gaussian' } bias_filler { type: 'gaussian' } }";
      SCOPED_TRACE(text.str());
      Blob<Dtype> bottom(at.bottom), scale(at.scale), other;
      this->Fill(&bottom);
      this->Fill(&scale);
      Blob<Dtype>& top = in_place ? bottom : other;
      vector<Blob<Dtype>*> bottoms(1, &bottom), tops(1, &top);
      if (!learned) { bottoms.push_back(&scale); }
      shared_ptr<Layer<Dtype>> layer = Make<Dtype>(text.str());
      layer->SetUp(bottoms, tops);
      ASSERT_EQ((learned ? 1 : 0) + (biased ? 1 : 0), layer->blobs().size());
      const std::vector<Dtype> x(bottom.cpu_data(), bottom.cpu_data() + bottom.count());
      layer->Forward(bottoms, tops);
      this->Fill(top.mutable_cpu_diff(), top.count());
      const std::vector<Dtype> dy(top.cpu_diff(), top.cpu_diff() + top.count());
      for (const auto& blob : layer->blobs()) { caffe_set(blob->count(), Dtype(2), blob->mutable_cpu_diff()); }
      layer->Backward(tops, vector<bool>(2, true), bottoms);
      const Blob<Dtype>& used = learned ? *layer->blobs()[0] : scale;
      const int scales = used.count(), inner = bottom.count(at.axis + at.scale.size());
      std::vector<double> scale_diff(scales, learned ? 2 : 0), bias_diff(scales, 2);
      for (int i = 0; i < bottom.count(); ++i) {
        const int s = i / inner % scales;
        const double shift = biased ? layer->blobs().back()->cpu_data()[s] : 0;
        EXPECT_NEAR(x[i] * used.cpu_data()[s] + shift, top.cpu_data()[i], this->kNear);
        EXPECT_NEAR(dy[i] * used.cpu_data()[s], bottom.cpu_diff()[i], this->kNear);
        scale_diff[s] += static_cast<double>(x[i]) * dy[i];
        bias_diff[s] += dy[i];
      }
      for (int s = 0; s < scales; ++s) {
        EXPECT_NEAR(scale_diff[s], used.cpu_diff()[s], 20 * this->kNear);
        if (biased) { EXPECT_NEAR(bias_diff[s], layer->blobs().back()->cpu_diff()[s], 20 * this->kNear); }
      }
    }
  }
}

TYPED_TEST(CpuLayersTest, EltwiseAgainstLoops) {
  typedef TypeParam Dtype;
  const std::string settings[] = {"operation: SUM", "operation: SUM coeff: 2 coeff: -0.5 coeff: 3", "operation: PROD",
                                  "operation: PROD stable_prod_grad: false", "operation: MAX"};
  for (const std::string& setting : settings) {
    SCOPED_TRACE(setting);
    Blob<Dtype> a(2, 5, 60, 70), b(2, 5, 60, 70), c(2, 5, 60, 70), top;
    for (Blob<Dtype>* blob : {&a, &b, &c}) { this->Fill(blob); }
    const vector<Blob<Dtype>*> bottoms = {&a, &b, &c}, tops = {&top};
    shared_ptr<Layer<Dtype>> layer = Make<Dtype>("type: 'Eltwise' eltwise_param { " + setting + " }");
    layer->SetUp(bottoms, tops);
    layer->Forward(bottoms, tops);
    this->Fill(top.mutable_cpu_diff(), top.count());
    layer->Backward(tops, vector<bool>(3, true), bottoms);
    const double coeffs[3] = {setting.find("coeff") < 99 ? 2. : 1., setting.find("coeff") < 99 ? -.5 : 1.,
                              setting.find("coeff") < 99 ? 3. : 1.};
    for (int i = 0; i < top.count(); ++i) {
      const double x[3] = {a.cpu_data()[i], b.cpu_data()[i], c.cpu_data()[i]};
      const double dy = top.cpu_diff()[i];
      double y, slopes[3];
      if (setting.find("SUM") < 99) {
        y = coeffs[0] * x[0] + coeffs[1] * x[1] + coeffs[2] * x[2];
        std::copy(coeffs, coeffs + 3, slopes);
      } else if (setting.find("PROD") < 99) {
        y = x[0] * x[1] * x[2];
        for (int n = 0; n < 3; ++n) { slopes[n] = x[(n + 1) % 3] * x[(n + 2) % 3]; }
      } else {
        const int best = std::max_element(x, x + 3) - x;
        y = x[best];
        for (int n = 0; n < 3; ++n) { slopes[n] = n == best; }
      }
      ASSERT_NEAR(y, top.cpu_data()[i], 10 * this->kNear);
      for (int n = 0; n < 3; ++n) { ASSERT_NEAR(dy * slopes[n], bottoms[n]->cpu_diff()[i], 50 * this->kNear); }
    }
  }
}

TYPED_TEST(CpuLayersTest, PermuteAgainstLoops) {
  typedef TypeParam Dtype;
  for (int round = 0; round < 60; ++round) {
    const int axes = this->Among(2, 5);
    vector<int> shape, order(axes);
    for (int i = 0; i < axes; ++i) { shape.push_back(this->Among(1, round % 3 == 0 ? 40 : 6)); }
    if (axes == 5) { shape[0] = 1; }
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), this->random_);
    std::ostringstream text;
    text << "type: 'Permute' permute_param {";
    for (const int axis : order) { text << " order: " << axis; }
    text << " }";
    SCOPED_TRACE(text.str());
    Blob<Dtype> bottom(shape), top;
    std::iota(bottom.mutable_cpu_data(), bottom.mutable_cpu_data() + bottom.count(), Dtype(0));
    const vector<Blob<Dtype>*> bottoms(1, &bottom), tops(1, &top);
    shared_ptr<Layer<Dtype>> layer = Make<Dtype>(text.str());
    layer->SetUp(bottoms, tops);
    layer->Forward(bottoms, tops);
    std::copy(top.cpu_data(), top.cpu_data() + top.count(), top.mutable_cpu_diff());
    layer->Backward(tops, vector<bool>(1, true), bottoms);
    vector<int> at(axes, 0);
    for (int i = 0; i < top.count(); ++i) {
      int from = 0;
      for (int j = 0; j < axes; ++j) {
        ASSERT_EQ(bottom.shape(order[j]), top.shape(j));
        from += at[j] * bottom.count(order[j] + 1);
      }
      ASSERT_EQ(from, top.cpu_data()[i]);
      ASSERT_EQ(from, bottom.cpu_diff()[from]);
      for (int j = axes - 1; j >= 0 && ++at[j] == top.shape(j); --j) { at[j] = 0; }
    }
  }
}

TYPED_TEST(CpuLayersTest, ConcatAndSliceAgainstLoops) {
  typedef TypeParam Dtype;
  for (int round = 0; round < 40; ++round) {
    // Many short rows, one long row, and anything between.
    vector<int> shape = {round % 4 == 0 ? 1 : this->Among(1, 40), this->Among(1, 40),
                         this->Among(1, round % 4 ? 9 : 2000)};
    const int axis = this->Among(0, 2), parts = this->Among(1, 4);
    Blob<Dtype> part[4], whole, back[4];
    vector<Blob<Dtype>*> bottoms, wholes(1, &whole), tops;
    std::ostringstream slice;
    slice << "type: 'Slice' slice_param { axis: " << axis - (round % 2 ? 3 : 0);
    int total = 0;
    for (int i = 0; i < parts; ++i) {
      shape[axis] = this->Among(1, 7);
      part[i].Reshape(shape);
      this->Fill(&part[i]);
      bottoms.push_back(&part[i]);
      tops.push_back(&back[i]);
      total += shape[axis];
      if (i + 1 < parts) { slice << " slice_point: " << total; }
    }
    slice << " }";
    SCOPED_TRACE(slice.str());
    shared_ptr<Layer<Dtype>> concat =
        Make<Dtype>("type: 'Concat' concat_param { axis: " + std::to_string(axis - (round % 3 ? 0 : 3)) + " }");
    concat->SetUp(bottoms, wholes);
    concat->Forward(bottoms, wholes);
    shared_ptr<Layer<Dtype>> slicer = Make<Dtype>(slice.str());
    slicer->SetUp(wholes, tops);
    slicer->Forward(wholes, tops);
    shape[axis] = total;
    ASSERT_EQ(shape, whole.shape());
    const int rows = part[0].count(0, axis), step = whole.count(axis);
    int begin = 0;
    for (int i = 0; i < parts; ++i) {
      ASSERT_EQ(part[i].shape(), back[i].shape());
      const int size = part[i].count(axis);
      for (int j = 0; j < part[i].count(); ++j) {
        ASSERT_EQ(part[i].cpu_data()[j], whole.cpu_data()[j / size * step + begin + j % size]);
        ASSERT_EQ(part[i].cpu_data()[j], back[i].cpu_data()[j]);
      }
      begin += size;
      this->Fill(back[i].mutable_cpu_diff(), back[i].count());
    }
    ASSERT_EQ(rows * step, whole.count());
    // Back through both: each gradient comes to where its value came from.
    slicer->Backward(tops, vector<bool>(1, true), wholes);
    vector<bool> down(parts, true);
    if (parts > 1) {
      down[0] = false;
      caffe_set(part[0].count(), Dtype(7), part[0].mutable_cpu_diff());
    }
    concat->Backward(wholes, down, bottoms);
    for (int i = 0; i < parts; ++i) {
      for (int j = 0; j < part[i].count(); ++j) {
        ASSERT_EQ(down[i] ? back[i].cpu_diff()[j] : Dtype(7), part[i].cpu_diff()[j]);
      }
    }
  }
}

TYPED_TEST(CpuLayersTest, BadLayersAreNamed) {
  typedef TypeParam Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  Blob<Dtype> one(2, 3, 4, 5), other(2, 3, 4, 6), second(2, 3, 4, 5), top;
  const struct {
    const char *text, *message;
    vector<Blob<Dtype>*> bottoms, tops;
  } bad[] = {
      {"name: 'c' type: 'Concat' concat_param { axis: 1 concat_dim: 1 }", "layer c: .*not both", {&one, &one}, {&top}},
      {"name: 'c' type: 'Concat' concat_param { concat_dim: 4294967295 }", "layer c: .*no axis", {&one, &one}, {&top}},
      {"name: 'c' type: 'Concat'", "layer c: bottom 1 has shape 2 3 4 6", {&one, &other}, {&top}},
      {"name: 's' type: 'Slice' slice_param { slice_point: 1 slice_point: 2 }",
       "layer s: 2 tops",
       {&one},
       {&top, &second}},
      {"name: 's' type: 'Slice' slice_param { slice_point: 3 }",
       "layer s: slice_points must rise, from 1 to 2",
       {&one},
       {&top, &second}},
      {"name: 'p' type: 'Permute' permute_param { order: 2 }", "layer p: in place", {&one}, {&one}},
      {"name: 'c' type: 'Concat'", "layer c: it needs", {&one, &second}, {&one}},
      {"name: 's' type: 'Slice' slice_param { slice_point: 1 }", "layer s: it needs", {&one}, {&top, &one}},
      {"name: 'e' type: 'Eltwise'", "layer e: in place", {&one, &second}, {&second}},
      {"name: 's' type: 'Slice'", "layer s: 3 does not divide into 2", {&one}, {&top, &second}},
  };
  for (const auto& wrong : bad) {
    EXPECT_DEATH(Make<Dtype>(wrong.text)->SetUp(wrong.bottoms, wrong.tops), wrong.message) << wrong.text;
  }
}

TYPED_TEST(CpuLayersTest, EmptyBatches) {
  // A batch of no images passes, leaves gradients as they were, and the next batch is as the one before.
  typedef TypeParam Dtype;
  const std::string convolution = "type: 'Convolution' convolution_param { weight_filler { type: 'gaussian' } ";
  const std::string texts[] = {
      convolution + "num_output: 3 kernel_size: 3 pad: 1 }",
      convolution + "num_output: 2 kernel_size: 1 }",
      convolution + "num_output: 4 kernel_size: 3 group: 4 }",
      convolution + "num_output: 4 kernel_size: 3 stride: 2 group: 4 }",
      "type: 'BatchNorm'",
      "type: 'BatchNorm' batch_norm_param { use_global_stats: true }",
      "type: 'Scale' scale_param { bias_term: true }",
      "type: 'Eltwise'",
      "type: 'Permute' permute_param { order: 0 order: 2 order: 3 order: 1 }",
      "type: 'Permute' permute_param { order: 1 order: 2 order: 3 order: 0 }",
      "type: 'Concat'",
      "type: 'Slice'",
      "type: 'Sigmoid'",
      "type: 'ReLU6'",
      "type: 'HardSwish'",
  };
  for (const std::string& text : texts) {
    SCOPED_TRACE(text);
    Blob<Dtype> bottom(2, 4, 6, 5), top, more;
    this->Fill(&bottom);
    const bool two_bottoms = text == "type: 'Eltwise'" || text == "type: 'Concat'";
    const vector<Blob<Dtype>*> bottoms(two_bottoms ? 2 : 1, &bottom);
    const vector<Blob<Dtype>*> tops =
        text == "type: 'Slice'" ? vector<Blob<Dtype>*>{&top, &more} : vector<Blob<Dtype>*>{&top};
    const vector<bool> down(bottoms.size(), true);
    shared_ptr<Layer<Dtype>> layer = Make<Dtype>(text);
    layer->SetUp(bottoms, tops);
    layer->Forward(bottoms, tops);
    const vector<Dtype> first(top.cpu_data(), top.cpu_data() + top.count());
    for (Blob<Dtype>* blob : tops) { caffe_set(blob->count(), Dtype(1), blob->mutable_cpu_diff()); }
    layer->Backward(tops, down, bottoms);
    vector<vector<Dtype>> kept;
    for (const auto& blob : layer->blobs()) { kept.emplace_back(blob->cpu_diff(), blob->cpu_diff() + blob->count()); }
    bottom.Reshape(0, 4, 6, 5);
    layer->Reshape(bottoms, tops);
    layer->Forward(bottoms, tops);
    EXPECT_EQ(0, top.count());
    layer->Backward(tops, down, bottoms);
    for (int i = 0; i < kept.size(); ++i) {
      const Dtype* diff = layer->blobs()[i]->cpu_diff();
      EXPECT_EQ(kept[i], vector<Dtype>(diff, diff + kept[i].size()));
    }
    bottom.Reshape(2, 4, 6, 5);
    layer->Forward(bottoms, tops);
    EXPECT_EQ(first, vector<Dtype>(top.cpu_data(), top.cpu_data() + top.count()));
  }
}

TYPED_TEST(CpuLayersTest, SigmoidAgainstTheFormula) {
  typedef TypeParam Dtype;
  const int count = 100003;  // more than one thread takes, and not whole vectors
  Blob<Dtype> bottom(1, 1, 1, count), apart;
  vector<Dtype> x(count);
  for (int i = 0; i < count; ++i) { x[i] = -110 + 130. * i / count; }
  const Dtype infinity = std::numeric_limits<Dtype>::infinity();
  const Dtype some[] = {0, static_cast<Dtype>(-0.), 1e-30, -1e-30, 1000, -1000, infinity, -infinity};
  std::copy(some, some + 8, x.begin() + 50000);
  x[77] = NAN;
  for (const bool in_place : {false, true}) {
    Blob<Dtype>& top = in_place ? bottom : apart;
    const vector<Blob<Dtype>*> bottoms(1, &bottom), tops(1, &top);
    shared_ptr<Layer<Dtype>> layer = Make<Dtype>("type: 'Sigmoid'");
    layer->SetUp(bottoms, tops);
    std::copy(x.begin(), x.end(), bottom.mutable_cpu_data());
    layer->Forward(bottoms, tops);
    for (int i = 0; i < count; ++i) { top.mutable_cpu_diff()[i] = 1 + i % 5; }
    vector<Dtype> y(top.cpu_data(), top.cpu_data() + count);
    layer->Backward(tops, vector<bool>(1, true), bottoms);
    for (int i = 0; i < count; ++i) {
      if (i == 77) {
        EXPECT_TRUE(std::isnan(y[i]));
        EXPECT_TRUE(std::isnan(bottom.cpu_diff()[i]));
        continue;
      }
      const long double wanted = 1 / (1 + std::exp(-static_cast<long double>(x[i])));
      const Dtype nearest = static_cast<Dtype>(wanted);
      // Of every size, down to the least that there is: 2.4 units in the last place at most.
      ASSERT_LE(std::fabs(wanted - y[i]), 2.5 * (std::nextafter(nearest, Dtype(2)) - nearest)) << "at " << x[i];
      ASSERT_EQ((1 + i % 5) * (y[i] * (1 - y[i])), bottom.cpu_diff()[i]) << "at " << x[i];
    }
    caffe_set(count, Dtype(7), bottom.mutable_cpu_diff());
    layer->Backward(tops, vector<bool>(1, false), bottoms);
    EXPECT_EQ(7, bottom.cpu_diff()[count - 1]);
  }
}

TYPED_TEST(CpuLayersTest, SigmoidGradient) {
  typedef TypeParam Dtype;
  Blob<Dtype> bottom(2, 3, 2, 5), top;
  this->Fill(&bottom);
  shared_ptr<Layer<Dtype>> layer = Make<Dtype>("type: 'Sigmoid'");
  GradientChecker<Dtype> checker(1e-2, 1e-3);
  checker.CheckGradientExhaustive(layer.get(), {&bottom}, {&top});
}

}  // namespace caffe
