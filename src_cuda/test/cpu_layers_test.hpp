// What the tests of the layers on the CPU share: a layer from its prototxt, and the fixture with random values.
#ifndef SSDLITE_CAFFE_TEST_CPU_LAYERS_TEST_HPP_
#define SSDLITE_CAFFE_TEST_CPU_LAYERS_TEST_HPP_

#include <random>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace caffe {

template <typename Dtype>
shared_ptr<Layer<Dtype>> Make(const std::string& text, Phase phase = TRAIN) {
  LayerParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(text, &param)) << text;
  param.set_phase(phase);
  return LayerRegistry<Dtype>::CreateLayer(param);
}

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

}  // namespace caffe

#endif  // SSDLITE_CAFFE_TEST_CPU_LAYERS_TEST_HPP_
