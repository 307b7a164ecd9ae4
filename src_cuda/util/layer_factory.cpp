// The layers that come in more than one engine, and Python layers. All others
// register themselves in their own files.
#ifdef WITH_PYTHON_LAYER
// Before any header of the system: Python.h defines _POSIX_C_SOURCE.
#include <boost/python.hpp>
#endif
#include "caffe/layer_factory.hpp"

#include <string>

#include "caffe/layer.hpp"
#include "caffe/layers/conv_layer.hpp"
#include "caffe/layers/depthwise_conv_layer.hpp"
#include "caffe/layers/global_pooling_layer.hpp"
#include "caffe/layers/lrn_layer.hpp"
#include "caffe/layers/pooling_layer.hpp"
#include "caffe/layers/relu_layer.hpp"
#include "caffe/layers/sigmoid_layer.hpp"
#include "caffe/layers/softmax_layer.hpp"
#include "caffe/layers/tanh_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#ifdef USE_CUDNN
#include "caffe/layers/cudnn_conv_layer.hpp"
#include "caffe/layers/cudnn_lcn_layer.hpp"
#include "caffe/layers/cudnn_lrn_layer.hpp"
#include "caffe/layers/cudnn_pooling_layer.hpp"
#include "caffe/layers/cudnn_relu_layer.hpp"
#include "caffe/layers/cudnn_sigmoid_layer.hpp"
#include "caffe/layers/cudnn_softmax_layer.hpp"
#include "caffe/layers/cudnn_tanh_layer.hpp"
#endif
#ifdef WITH_PYTHON_LAYER
#include "caffe/layers/python_layer.hpp"
#endif

namespace caffe {

namespace {

/// Whether the engine is CUDNN; stops if this build has none. The message of each layer has its own Engine, all with
/// the same values.
template <typename Engine>
bool AsksForCuDNN(const LayerParameter& param, const Engine engine) {
  const bool asks = static_cast<int>(engine) == static_cast<int>(ConvolutionParameter_Engine_CUDNN);
#ifndef USE_CUDNN
  CHECK(!asks) << "Layer " << param.name() << " asks for engine CUDNN, and this Caffe is built without cuDNN.";
#endif
  return asks;
}

/// Whether this can be a depthwise convolution. The channels of its bottom are not known yet: DepthwiseConvolutionLayer
/// checks them, and computes as ConvolutionLayer if group != channels.
bool MaybeDepthwise(const ConvolutionParameter& param) {
  return param.group() > 1 && param.group() == param.num_output() && param.kernel_size_size() <= 2 &&
         !param.force_nd_im2col();
}

}  // namespace

template <typename Dtype>
shared_ptr<Layer<Dtype>> GetConvolutionLayer(const LayerParameter& param) {
  const ConvolutionParameter& conv = param.convolution_param();
  if (conv.engine() == ConvolutionParameter_Engine_DEFAULT && MaybeDepthwise(conv)) {
    return shared_ptr<Layer<Dtype>>(new DepthwiseConvolutionLayer<Dtype>(param));
  }
#ifdef USE_CUDNN
  if (conv.engine() != ConvolutionParameter_Engine_CAFFE) {
    return shared_ptr<Layer<Dtype>>(new CuDNNConvolutionLayer<Dtype>(param));
  }
#endif
  AsksForCuDNN(param, conv.engine());
  return shared_ptr<Layer<Dtype>>(new ConvolutionLayer<Dtype>(param));
}

REGISTER_LAYER_CREATOR(Convolution, GetConvolutionLayer);

// For the layers below DEFAULT means Caffe's own kernels on the GPU too. They and cuDNN's both wait for memory, but
// cuDNN's AVE pooling also counts padding beyond the edge of the image, and each of its layers opens its own handle.

template <typename Dtype>
shared_ptr<Layer<Dtype>> GetPoolingLayer(const LayerParameter& param) {
  if (AsksForCuDNN(param, param.pooling_param().engine())) {
#ifdef USE_CUDNN
    // cuDNN's MAX searches for the largest value again in its backward pass, so a layer in place after it would give
    // wrong gradients; and it has no second top.
    if (param.top_size() <= 1 && param.pooling_param().pool() == PoolingParameter_PoolMethod_AVE) {
      return shared_ptr<Layer<Dtype>>(new CuDNNPoolingLayer<Dtype>(param));
    }
#endif
  }
  const PoolingParameter& pooling = param.pooling_param();
  // A plane without values, or a second top, is the plain class's to refuse or compute.
  if (pooling.global_pooling() && pooling.pool() == PoolingParameter_PoolMethod_AVE && param.top_size() <= 1) {
    return shared_ptr<Layer<Dtype>>(new GlobalPoolingLayer<Dtype>(param));
  }
  return shared_ptr<Layer<Dtype>>(new PoolingLayer<Dtype>(param));
}

REGISTER_LAYER_CREATOR(Pooling, GetPoolingLayer);

template <typename Dtype>
shared_ptr<Layer<Dtype>> GetLRNLayer(const LayerParameter& param) {
  if (AsksForCuDNN(param, param.lrn_param().engine())) {
#ifdef USE_CUDNN
    if (param.lrn_param().norm_region() == LRNParameter_NormRegion_WITHIN_CHANNEL) {
      return shared_ptr<Layer<Dtype>>(new CuDNNLCNLayer<Dtype>(param));
    }
    if (param.lrn_param().local_size() <= CUDNN_LRN_MAX_N) {
      return shared_ptr<Layer<Dtype>>(new CuDNNLRNLayer<Dtype>(param));
    }
#endif
  }
  return shared_ptr<Layer<Dtype>>(new LRNLayer<Dtype>(param));
}

REGISTER_LAYER_CREATOR(LRN, GetLRNLayer);

// GetReLULayer and so on: the plain class, or cuDNN's where it is asked for.
#ifdef USE_CUDNN
#define CREATE_CUDNN_LAYER(type) return shared_ptr<Layer<Dtype>>(new CuDNN##type##Layer<Dtype>(param));
#else
#define CREATE_CUDNN_LAYER(type)
#endif
#define REGISTER_TWO_ENGINES(type, field)                                         \
  template <typename Dtype>                                                       \
  shared_ptr<Layer<Dtype>> Get##type##Layer(const LayerParameter& param) {        \
    if (AsksForCuDNN(param, param.field().engine())) { CREATE_CUDNN_LAYER(type) } \
    return shared_ptr<Layer<Dtype>>(new type##Layer<Dtype>(param));               \
  }                                                                               \
  REGISTER_LAYER_CREATOR(type, Get##type##Layer)

REGISTER_TWO_ENGINES(ReLU, relu_param);
REGISTER_TWO_ENGINES(Sigmoid, sigmoid_param);
REGISTER_TWO_ENGINES(Softmax, softmax_param);
REGISTER_TWO_ENGINES(TanH, tanh_param);

#ifdef WITH_PYTHON_LAYER
template <typename Dtype>
shared_ptr<Layer<Dtype>> GetPythonLayer(const LayerParameter& param) {
  Py_Initialize();
  try {
    const PythonParameter& python = param.python_param();
    bp::object module = bp::import(python.module().c_str());
    bp::object layer = module.attr(python.layer().c_str())(param);
    return bp::extract<shared_ptr<PythonLayer<Dtype>>>(layer)();
  } catch (const bp::error_already_set&) {
    PyErr_Print();
    throw;
  }
}

REGISTER_LAYER_CREATOR(Python, GetPythonLayer);
#endif

}  // namespace caffe
