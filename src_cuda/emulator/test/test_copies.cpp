// Copies between host and device in a training step. Each makes the host wait until the device has done all before it.
#include <algorithm>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "caffe/common.hpp"
#include "caffe/layers/batch_norm_layer.hpp"
#include "caffe/layers/depthwise_conv_layer.hpp"
#include "caffe/sgd_solvers.hpp"
#include "caffe/test/test_caffe_main.hpp"
#include "emulator.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace caffe {

namespace {

constexpr int kBlocks = 3;

std::string LayerText(const std::string& type, const std::string& name, const std::string& bottom,
                      const std::string& top, const std::string& more = "") {
  return "layer { type: '" + type + "' name: '" + name + "' bottom: '" + bottom + "' top: '" + top + "' " + more + "} ";
}

/// Blocks of a MobileNet: convolution, BatchNorm, Scale and ReLU6 in place, 1x1 and depthwise in turn.
std::string NetText() {
  std::string text =
      "layer { type: 'DummyData' name: 'data' top: 'data' top: 'label' dummy_data_param {"
      " shape { dim: 2 dim: 3 dim: 8 dim: 8 } shape { dim: 2 }"
      " data_filler { type: 'gaussian' } data_filler { type: 'constant' value: 1 } } } ";
  std::string last = "data";
  for (int i = 0; i < kBlocks; ++i) {
    for (const bool depthwise : {false, true}) {
      const std::string name = (depthwise ? "dw" : "conv") + std::to_string(i);
      const std::string filler = " weight_filler { type: 'msra' } ";
      text += LayerText(
          "Convolution", name, last, name,
          depthwise
              ? "convolution_param { num_output: 8 group: 8 kernel_size: 3 pad: 1 bias_term: false" + filler + "} "
              : "convolution_param { num_output: 8 kernel_size: 1 bias_term: false" + filler + "} ");
      text += LayerText("BatchNorm", name + "/bn", name, name);
      text += LayerText("Scale", name + "/scale", name, name, "scale_param { bias_term: true } ");
      text += LayerText("ReLU6", name + "/relu", name, name);
      last = name;
    }
  }
  text += LayerText("Pooling", "pool", last, "pool", "pooling_param { pool: AVE global_pooling: true } ");
  text += LayerText("Convolution", "score", "pool", "score", "convolution_param { num_output: 4 kernel_size: 1 } ");
  return text + "layer { type: 'SoftmaxWithLoss' name: 'loss' bottom: 'score' bottom: 'label' top: 'loss' } ";
}

std::string Sizes(const std::vector<size_t>& sizes, const size_t from) {
  std::map<size_t, int> times;
  for (size_t i = from; i < sizes.size(); ++i) { ++times[sizes[i]]; }
  std::ostringstream text;
  for (const auto& size : times) { text << size.second << " of " << size.first << " bytes; "; }
  return text.str();
}

std::string TimesOf(const int times, const size_t size) {
  return std::to_string(times) + " of " + std::to_string(size) + " bytes; ";
}

}  // namespace

TEST(CopiesTest, OfATrainingStep) {
  Caffe::set_mode(Caffe::GPU);
  Caffe::set_random_seed(7);
  SolverParameter param;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      "base_lr: 0.01 lr_policy: 'fixed' momentum: 0.9 weight_decay: 0.0001 max_iter: 100 display: 0 snapshot: 0"
      " snapshot_after_train: false solver_mode: GPU net_param { " +
          NetText() + " }",
      &param));
  SGDSolver<float> solver(param);
  solver.Step(3);
  const emulator::Copies& copies = emulator::AllCopies();
  const size_t in = copies.to_device.size(), out = copies.to_host.size();
  constexpr int kSteps = 2;
  solver.Step(kSteps);
  // In: the images, which the host makes. Nothing else changes on the host, so neither do the vectors of ones.
  EXPECT_EQ(TimesOf(kSteps, 2 * 3 * 8 * 8 * sizeof(float)), Sizes(copies.to_device, in));
  // Out: the loss, and of each BatchNorm the gradient of its third blob: the layer keeps that blob on the host, where
  // the solver then adds its gradient, which is zero.
  EXPECT_EQ(TimesOf(kSteps * (2 * kBlocks + 1), sizeof(float)), Sizes(copies.to_host, out));
  Caffe::set_mode(Caffe::CPU);
}

}  // namespace caffe
