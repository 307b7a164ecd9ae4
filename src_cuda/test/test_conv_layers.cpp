// Convolution, forward: every way to write padding, stride, dilation and group against plain loops, on each engine;
// tf_pad against TensorFlow's rule for SAME.
#include <string>
#include <vector>

#include "caffe/layers/deconv_layer.hpp"
#include "caffe/util/parallel.hpp"
#include "conv_layers_test.hpp"

namespace caffe {

TYPED_TEST_CASE(ConvLayersTest, TestDtypesAndDevices);

TYPED_TEST(ConvLayersTest, SameAsTensorFlow) {
  for (int h : {7, 8, 9, 10}) {
    for (int kernel : {1, 2, 3, 5}) {
      for (int stride : {1, 2, 3}) {
        for (int dilation : {1, 2}) {
          // TensorFlow does not combine stride and dilation; here the same rule holds for both.
          const Setting set = {kernel, kernel == 5 ? 2 : kernel, stride, stride == 3 ? 2 : stride, dilation, 1, -1, -1};
          this->CheckForward(set, 2, 3, h, 11 - h / 4, 4);
          if (this->HasFatalFailure()) { return; }
        }
      }
    }
  }
}

TYPED_TEST(ConvLayersTest, SameInGroups) {
  for (int group : {1, 2, 4}) {
    for (int num_output : {4, 8}) {
      for (int h : {6, 9}) {
        for (int stride : {1, 2}) {
          const Setting set = {3, 3, stride, stride, 1, group, -1, -1};
          this->CheckForward(set, 2, 4, h, 8, num_output, h == 6);
          if (this->HasFatalFailure()) { return; }
        }
      }
    }
  }
}

TYPED_TEST(ConvLayersTest, SamePadsLessBeforeThanAfter) {
  typedef typename TypeParam::Dtype Dtype;
  // With inputs and weights of 1, an output is the number of input positions that its window reads.
  struct {
    int in, kernel;
    vector<Dtype> counts;
  } const rows[] = {
      {4, 3, {3, 2}},     // 0 before, 1 after
      {6, 5, {4, 5, 3}},  // 1 before, 2 after
      {5, 3, {2, 3, 2}},  // 1, 1
      {4, 1, {1, 1}},     // none: no window reads the last position
  };
  for (const auto& row : rows) {
    Blob<Dtype> in(1, 1, row.in, 1), out;
    caffe_set(in.count(), Dtype(1), in.mutable_cpu_data());
    LayerParameter param;
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
        "type: 'Convolution' convolution_param { num_output: 1 kernel_h: " + std::to_string(row.kernel) +
            " kernel_w: 1 stride: 2 tf_pad: SAME"
            " weight_filler { type: 'constant' value: 1 } }",
        &param));
    vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
    for (shared_ptr<Layer<Dtype>>& layer : this->Layers(param)) {
      layer->SetUp(bottom, top);
      layer->Forward(bottom, top);
      EXPECT_EQ(row.counts, vector<Dtype>(out.cpu_data(), out.cpu_data() + out.count()));
    }
  }
}

TYPED_TEST(ConvLayersTest, ValidIsNoPadding) {
  typedef typename TypeParam::Dtype Dtype;
  // tf_pad replaces pad, which is not read beside it.
  for (const char* text : {"kernel_size: 3 stride: 2 tf_pad: VALID", "kernel_size: 3 stride: 2 tf_pad: VALID pad: 5"}) {
    Blob<Dtype> in(2, 3, 8, 7), out;
    Fill(&in);
    vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
    for (shared_ptr<Layer<Dtype>>& layer : this->Layers(Parse(std::string("num_output: 2 ") + text))) {
      layer->SetUp(bottom, top);
      layer->Forward(bottom, top);
      const Setting set = {3, 3, 2, 2, 1, 1, 0, 0};
      Blob<double> wanted;
      Naive(in, set, layer->blobs(), &wanted);
      ExpectSame(wanted, out);
    }
  }
}

TYPED_TEST(ConvLayersTest, SameFollowsTheInputsSize) {
  typedef typename TypeParam::Dtype Dtype;
  const Setting set = {3, 5, 2, 2, 1, 1, -1, -1};
  Blob<Dtype> in(2, 3, 8, 8), out;
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
  for (shared_ptr<Layer<Dtype>>& layer : this->Layers(Parse(set.Text(4)))) {
    in.Reshape(2, 3, 8, 8);
    layer->SetUp(bottom, top);
    const int sizes[][3] = {{2, 8, 8}, {1, 7, 9}, {3, 9, 10}, {2, 8, 8}};
    for (const auto& size : sizes) {
      in.Reshape(size[0], 3, size[1], size[2]);
      Fill(&in);
      layer->Reshape(bottom, top);
      layer->Forward(bottom, top);
      Blob<double> wanted;
      Naive(in, set, layer->blobs(), &wanted);
      ExpectSame(wanted, out);
    }
  }
}

TYPED_TEST(ConvLayersTest, ReshapesAgainWhereItMust) {
  typedef typename TypeParam::Dtype Dtype;
  const Setting set = {3, 3, 2, 2, 1, 1, -1, -1};  // SAME
  vector<shared_ptr<Layer<Dtype>>> layers = this->Layers(Parse(set.Text(4)));
  // This one reads its padding anew in each pass.
  layers.emplace_back(new ConvolutionLayer<Dtype>(Parse(set.Text(4) + " force_nd_im2col: true")));
  for (shared_ptr<Layer<Dtype>>& layer : layers) {
    Blob<Dtype> wide(2, 3, 8, 9), narrow(2, 3, 9, 8), out, other;
    const auto check = [&](Blob<Dtype>* in, Blob<Dtype>* to) {
      Fill(in);
      const vector<Blob<Dtype>*> bottom(1, in), top(1, to);
      layer->Reshape(bottom, top);
      layer->Forward(bottom, top);
      Blob<double> wanted;
      Naive(*in, set, layer->blobs(), &wanted);
      ASSERT_EQ(to->shape(), wanted.shape());
      ExpectSame(wanted, *to);
    };
    layer->SetUp(vector<Blob<Dtype>*>(1, &wide), vector<Blob<Dtype>*>(1, &out));
    check(&wide, &out);
    out.Reshape(1, 2, 3, 4);  // as somebody may
    check(&wide, &out);
    check(&wide, &other);  // a top that it has not seen
    {
      Blob<Dtype> brief(2, 3, 8, 9);
      check(&brief, &out);
    }
    check(&wide, &out);  // after a bottom that exists no longer
    check(&narrow, &out);
    layer->SetUp(vector<Blob<Dtype>*>(1, &narrow), vector<Blob<Dtype>*>(1, &out));
    check(&narrow, &out);
  }
}

TYPED_TEST(ConvLayersTest, SymmetricPadding) {
  // The last two: windows that read padding only, and input positions that no window reads.
  const Setting sets[] = {
      {3, 3, 1, 1, 1, 1, 1, 1}, {3, 3, 2, 2, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 0, 0}, {1, 1, 2, 2, 1, 2, 0, 0},
      {1, 1, 1, 1, 1, 1, 1, 2}, {3, 5, 1, 2, 1, 2, 2, 0}, {4, 4, 2, 2, 1, 4, 1, 1}, {3, 2, 3, 1, 2, 1, 4, 3},
      {5, 3, 2, 3, 1, 1, 4, 7}, {2, 2, 3, 3, 1, 1, 0, 0},
  };
  for (const Setting& set : sets) {
    this->CheckForward(set, 2, 4, 9, 6, 8);
    this->CheckForward(set, 1, 4, 5, 7, 4, false);
    if (this->HasFatalFailure()) { return; }
  }
}

TYPED_TEST(ConvLayersTest, WideRowsOfFewChannels) {
  // Rows that fill vectors of any processor: they are computed without columns.
  const Setting sets[] = {
      {4, 4, 2, 2, 1, 1, 1, 1}, {3, 3, 2, 2, 1, 1, -1, -1}, {3, 3, 1, 1, 1, 1, 1, 1},   {3, 2, 1, 2, 2, 1, 3, 2},
      {2, 5, 3, 3, 1, 1, 0, 7}, {1, 1, 2, 2, 1, 1, 0, 0},   {5, 3, 1, 1, 3, 1, -1, -1}, {3, 3, 2, 2, 1, 1, 33, 65},
  };
  for (const Setting& set : sets) {
    this->CheckForward(set, 2, 3, 13, 64 * set.stride_w, 9);
    this->CheckForward(set, 1, 1, 30, 126 * set.stride_w - 1, 16, false);
    if (this->HasFatalFailure()) { return; }
  }
}

TYPED_TEST(ConvLayersTest, ThreadsAgree) {
  typedef typename TypeParam::Dtype Dtype;
  // Large enough for several threads to make the columns and add them up.
  const Setting set = {3, 3, 2, 2, 1, 1, -1, -1};
  this->CheckForward(set, 1, 3, 130, 131, 4);
  Blob<Dtype> in(1, 3, 130, 131), out;
  Fill(&in);
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
  ConvolutionLayer<Dtype> layer(Parse(set.Text(4)));
  layer.SetUp(bottom, top);
  for (const auto& blob : layer.blobs()) { caffe_set(blob->count(), Dtype(0), blob->mutable_cpu_diff()); }
  const int usual = ParallelThreads();
  vector<Dtype> outputs[2], diffs[2];
  for (int k = 0; k < 2; ++k) {
    SetParallelThreads(k == 0 ? 1 : 4);
    layer.Forward(bottom, top);
    outputs[k].assign(out.cpu_data(), out.cpu_data() + out.count());
    caffe_copy(out.count(), out.cpu_data(), out.mutable_cpu_diff());
    layer.Backward(top, vector<bool>(1, true), bottom);
    diffs[k].assign(in.cpu_diff(), in.cpu_diff() + in.count());
  }
  SetParallelThreads(usual);
  EXPECT_EQ(outputs[0], outputs[1]);
  EXPECT_EQ(diffs[0], diffs[1]);
}

TYPED_TEST(ConvLayersTest, NdPathEqualsPlanarPath) {
  typedef typename TypeParam::Dtype Dtype;
  const std::string text = "num_output: 4 kernel_size: 3 stride: 2 tf_pad: SAME group: 2 ";
  Blob<Dtype> in(2, 4, 8, 7), planar_out, nd_out;
  Fill(&in);
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &planar_out);
  ConvolutionLayer<Dtype> planar(Parse(text));
  planar.SetUp(bottom, top);
  planar.Forward(bottom, top);
  ConvolutionLayer<Dtype> nd(Parse(text + "force_nd_im2col: true"));
  top[0] = &nd_out;
  nd.SetUp(bottom, top);
  for (int i = 0; i < 2; ++i) { nd.blobs()[i]->CopyFrom(*planar.blobs()[i]); }
  nd.Forward(bottom, top);
  ASSERT_EQ(planar_out.shape(), nd_out.shape());
  for (int i = 0; i < nd_out.count(); ++i) { EXPECT_EQ(planar_out.cpu_data()[i], nd_out.cpu_data()[i]); }
}

TYPED_TEST(ConvLayersTest, OneAndThreeAxes) {
  typedef typename TypeParam::Dtype Dtype;
  // A third axis of size 1 and a kernel of 1 there change nothing; likewise
  // with one axis against two.
  Blob<Dtype> in(2, 3, 8, 7), flat, deep, line;
  Fill(&in);
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &flat);
  ConvolutionLayer<Dtype> two(Parse("num_output: 2 kernel_size: 3 stride: 2 tf_pad: SAME"));
  two.SetUp(bottom, top);
  two.Forward(bottom, top);
  ConvolutionLayer<Dtype> three(
      Parse("num_output: 2 kernel_size: [1, 3, 3] stride: [1, 2, 2]"
            " tf_pad: SAME"));
  in.Reshape({2, 3, 1, 8, 7});
  top[0] = &deep;
  three.SetUp(bottom, top);
  three.blobs()[0]->CopyFrom(*two.blobs()[0], false, true);
  three.blobs()[0]->Reshape({2, 3, 1, 3, 3});
  three.blobs()[1]->CopyFrom(*two.blobs()[1]);
  three.Forward(bottom, top);
  ASSERT_EQ(vector<int>({2, 2, 1, 4, 4}), deep.shape());
  for (int i = 0; i < deep.count(); ++i) { ASSERT_NEAR(flat.cpu_data()[i], deep.cpu_data()[i], 1e-5); }
  ConvolutionLayer<Dtype> one(Parse("num_output: 2 kernel_size: 3 stride: 2 tf_pad: SAME"));
  in.Reshape({2, 3, 56});
  top[0] = &line;
  one.SetUp(bottom, top);
  one.Forward(bottom, top);
  ASSERT_EQ(vector<int>({2, 2, 28}), line.shape());
  in.Reshape({2, 3, 1, 56});
  const Setting set = {1, 3, 1, 2, 1, 1, -1, -1};
  one.blobs()[0]->Reshape({2, 3, 1, 3});
  Blob<double> wanted;
  Naive(in, set, one.blobs(), &wanted);
  wanted.Reshape(line.shape());
  ExpectSame(wanted, line);
}

TYPED_TEST(ConvLayersTest, BadParametersNameTheLayer) {
  typedef typename TypeParam::Dtype Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const char* const texts[][2] = {
      {"num_output: 2", "layer conv: kernel_size is given 0 times, must be given once"},
      {"num_output: 2 kernel_size: 0", "layer conv: kernel_size is 0, must be 1 or more"},
      {"num_output: 2 kernel_size: 3 stride: 0", "layer conv: stride is 0, must be 1"},
      {"num_output: 2 kernel_size: 3 dilation: 0", "layer conv: dilation is 0, must be 1"},
      {"num_output: 2 kernel_size: [3, 3, 3]", "given 3 times"},
      {"num_output: 2 kernel_size: 3 kernel_h: 3 kernel_w: 3", "not both"},
      {"kernel_size: 3", "layer conv: num_output is missing"},
      {"num_output: 3 kernel_size: 3 group: 2", "num_output 3 does not divide"},
      {"num_output: 3 kernel_size: 3 group: 3", "4 channels do not divide"},
      {"num_output: 2 kernel_size: 7", "kernel of extent 7 does not fit"},
      // Sizes that do not fit an int.
      {"num_output: 2 kernel_size: 3 dilation: 2000000000", "kernel of extent 4000000001 does not fit"},
      {"num_output: 2 kernel_size: 3 pad: 2000000000", "padding is too large"},
      {"num_output: 2 kernel_size: 3 dilation: 2000000000 tf_pad: SAME", "kernel is too large"},
  };
  Blob<Dtype> in(2, 4, 6, 5), out;
  vector<Blob<Dtype>*> bottom(1, &in), top(1, &out);
  for (const auto& text : texts) {
    ConvolutionLayer<Dtype> layer(Parse(text[0]));
    EXPECT_DEATH(layer.SetUp(bottom, top), text[1]);
  }
  DeconvolutionLayer<Dtype> layer(Parse("num_output: 2 kernel_size: 3 tf_pad: SAME"));
  EXPECT_DEATH(layer.SetUp(bottom, top), "tf_pad is for Convolution only");
}

TYPED_TEST(ConvLayersTest, InPlaceIsRefused) {
  typedef typename TypeParam::Dtype Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  for (const char* group : {"1", "3"}) {
    Blob<Dtype> in(1, 3, 6, 5);
    vector<Blob<Dtype>*> both(1, &in);
    shared_ptr<Layer<Dtype>> layer =
        LayerRegistry<Dtype>::CreateLayer(Parse(std::string("num_output: 3 kernel_size: 3 pad: 1 group: ") + group));
    EXPECT_DEATH(layer->SetUp(both, both), "layer conv: in place");
    Blob<Dtype> out;
    layer->SetUp(both, vector<Blob<Dtype>*>(1, &out));
    EXPECT_DEATH(layer->Reshape(both, both), "layer conv: in place");
  }
}

}  // namespace caffe
