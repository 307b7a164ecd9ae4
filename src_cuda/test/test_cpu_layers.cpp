// Eltwise, Permute, Concat, Slice and Sigmoid on the CPU against plain loops; bad settings and empty batches of these
// and other layers.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "caffe/test/test_gradient_check_util.hpp"
#include "cpu_layers_test.hpp"

namespace caffe {

TYPED_TEST_CASE(CpuLayersTest, Numbers);

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
