// Which class the factory makes of a type and an engine.
#include <string>
#include <typeinfo>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/conv_layer.hpp"
#include "caffe/layers/depthwise_conv_layer.hpp"
#include "caffe/layers/pooling_layer.hpp"
#include "caffe/layers/relu_layer.hpp"
#include "caffe/layers/softmax_layer.hpp"
#ifdef USE_CUDNN
#include "caffe/layers/cudnn_conv_layer.hpp"
#include "caffe/layers/cudnn_pooling_layer.hpp"
#include "caffe/layers/cudnn_relu_layer.hpp"
#endif
#include "caffe/test/test_caffe_main.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace caffe {

namespace {

LayerParameter Parse(const std::string& text) {
  LayerParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString("name: 'one' " + text, &param)) << text;
  return param;
}

LayerParameter Conv(const std::string& text) {
  return Parse("type: 'Convolution' convolution_param { kernel_size: 3 " + text + " }");
}

}  // namespace

template <typename Dtype>
class LayerEnginesTest : public CPUDeviceTest<Dtype> {
 protected:
  template <typename Class>
  void ExpectClass(const LayerParameter& param) {
    const shared_ptr<Layer<Dtype>> layer = LayerRegistry<Dtype>::CreateLayer(param);
    const Layer<Dtype>& made = *layer;
    EXPECT_EQ(typeid(Class).name(), std::string(typeid(made).name())) << param.ShortDebugString();
  }
};

TYPED_TEST_CASE(LayerEnginesTest, TestDtypes);

TYPED_TEST(LayerEnginesTest, Convolution) {
#ifdef USE_CUDNN
  typedef CuDNNConvolutionLayer<TypeParam> Dense;
#else
  typedef ConvolutionLayer<TypeParam> Dense;
#endif
  typedef ConvolutionLayer<TypeParam> Plain;
  typedef DepthwiseConvolutionLayer<TypeParam> Depthwise;
  this->template ExpectClass<Dense>(Conv("num_output: 4"));
  this->template ExpectClass<Dense>(Conv("num_output: 4 group: 2"));
  this->template ExpectClass<Dense>(Conv("num_output: 8 group: 4"));
  this->template ExpectClass<Dense>(Conv("num_output: 1 group: 1"));
  this->template ExpectClass<Dense>(  // three axes, with Conv's own
      Conv("num_output: 4 group: 4 kernel_size: 3 kernel_size: 3"));
  this->template ExpectClass<Plain>(Conv("num_output: 4 engine: CAFFE"));
  this->template ExpectClass<Plain>(Conv("num_output: 4 group: 4 engine: CAFFE"));
  this->template ExpectClass<Depthwise>(Conv("num_output: 4 group: 4"));
  this->template ExpectClass<Depthwise>(Conv("num_output: 4 group: 4 tf_pad: SAME stride: 2 dilation: 2"));
}

TYPED_TEST(LayerEnginesTest, MoreChannelsThanGroupsIsNotDepthwise) {
  // num_output == group, but two channels to each kernel: the factory cannot
  // see that, and the result must be that of the plain layer.
  typedef TypeParam Dtype;
  Blob<Dtype> in(2, 6, 5, 4), outs[2];
  for (int i = 0; i < in.count(); ++i) { in.mutable_cpu_data()[i] = (i * 29) % 41 - 20; }
  vector<Blob<Dtype>*> bottom(1, &in), top(1);
  shared_ptr<Layer<Dtype>> layers[2];
  for (int k = 0; k < 2; ++k) {
    layers[k] =
        LayerRegistry<Dtype>::CreateLayer(Conv("num_output: 3 group: 3 pad: 1 weight_filler { type: 'gaussian' }"
                                               " engine: " +
                                               std::string(k == 0 ? "DEFAULT" : "CAFFE")));
    top[0] = &outs[k];
    layers[k]->SetUp(bottom, top);
    layers[k]->blobs()[0]->CopyFrom(*layers[0]->blobs()[0]);
    layers[k]->Forward(bottom, top);
  }
  EXPECT_EQ(vector<int>({3, 2, 3, 3}), layers[0]->blobs()[0]->shape());
  ASSERT_EQ(outs[1].shape(), outs[0].shape());
  for (int i = 0; i < outs[0].count(); ++i) { EXPECT_EQ(outs[1].cpu_data()[i], outs[0].cpu_data()[i]); }
}

TYPED_TEST(LayerEnginesTest, OthersArePlainUnlessAsked) {
  this->template ExpectClass<ReLULayer<TypeParam>>(Parse("type: 'ReLU'"));
  this->template ExpectClass<SoftmaxLayer<TypeParam>>(Parse("type: 'Softmax'"));
  this->template ExpectClass<PoolingLayer<TypeParam>>(Parse("type: 'Pooling' pooling_param { pool: AVE }"));
#ifdef USE_CUDNN
  this->template ExpectClass<CuDNNReLULayer<TypeParam>>(Parse("type: 'ReLU' relu_param { engine: CUDNN }"));
  const std::string pool = "type: 'Pooling' pooling_param { ";
  this->template ExpectClass<CuDNNPoolingLayer<TypeParam>>(Parse(pool + "engine: CUDNN pool: AVE }"));
  this->template ExpectClass<PoolingLayer<TypeParam>>(Parse(pool + "engine: CUDNN pool: MAX }"));
#else
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(LayerRegistry<TypeParam>::CreateLayer(Parse("type: 'ReLU' relu_param { engine: CUDNN }")),
               "Layer one asks for engine CUDNN, and this Caffe is built");
  EXPECT_DEATH(LayerRegistry<TypeParam>::CreateLayer(Conv("num_output: 4 group: 4 engine: CUDNN")),
               "Layer one asks for engine CUDNN");
#endif
}

}  // namespace caffe
