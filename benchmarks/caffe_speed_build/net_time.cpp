// Times a net, one pass at a word: caffe_speed.py starts one for each side and asks them in turn.
//
//   net_time NET WEIGHTS|- TRAIN|TEST
//
// answers on stdout, a line to each line on stdin:
//   forward   milliseconds of a forward pass
//   warm S    the same of a pass that follows others at once, which took S seconds
//   backward  milliseconds of a backward pass
//   step      milliseconds of a training step: gradients to 0, forward, backward, SGD with momentum
//   wait      milliseconds of the first layer, which is to give data, and of the whole pass forward and back
//   peak      most memory held so far, in MiB
#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "caffe/caffe.hpp"

namespace {

using caffe::Blob;
using caffe::Caffe;
using caffe::Net;

double Now() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Of this program; getrusage counts what the process held that started it.
double PeakMiB() {
  std::ifstream status("/proc/self/status");
  std::string word;
  double kib = 0;
  while (status >> word) {
    if (word == "VmHWM:") { status >> kib; }
  }
  return kib / 1024;
}

/// Images in [-1, 1], if the net has no data layer; for labels (rows of 8) three boxes an image of classes that are there.
void Fill(Net<float>* net, const int classes) {
  if (net->input_blobs().empty()) { return; }
  std::mt19937 random(3);
  const auto uniform = [&](float low, float high) { return low + (high - low) * (random() / 4294967296.f); };
  const int images = net->input_blobs()[0]->shape(0);
  for (Blob<float>* blob : net->input_blobs()) {
    float* to = blob->mutable_cpu_data();
    if (blob->num_axes() != 4 || blob->shape(3) != 8) {
      for (int i = 0; i < blob->count(); ++i) { to[i] = uniform(-1, 1); }
      continue;
    }
    for (int i = 0; i < blob->shape(2); ++i, to += 8) {
      const float x = uniform(0, 0.6), y = uniform(0, 0.6);
      const float row[] = {static_cast<float>(i * images / blob->shape(2)), static_cast<float>(1 + i * 7 % classes), 0, x, y,
                           x + uniform(0.1, 0.4), y + uniform(0.1, 0.4), 0};
      std::copy(row, row + 8, to);
    }
  }
}

/// What SGDSolver does in a step, at a learning rate so low that the weights stay as they are made.
class Sgd {
 public:
  explicit Sgd(Net<float>* net) : net_(net) {
    for (Blob<float>* blob : net->learnable_params()) { history_.emplace_back(blob->count(), 0.f); }
  }

  void Step() {
    net_->ClearParamDiffs();
    net_->Forward();
    net_->Backward();
    for (size_t i = 0; i < history_.size(); ++i) {
      Blob<float>* blob = net_->learnable_params()[i];
      caffe::caffe_cpu_axpby(blob->count(), 1e-9f, blob->cpu_diff(), 0.9f, history_[i].data());
      std::copy(history_[i].begin(), history_[i].end(), blob->mutable_cpu_diff());
    }
    net_->Update();
  }

 private:
  Net<float>* net_;
  std::vector<std::vector<float>> history_;
};

}  // namespace

int main(int argc, char** argv) {
  FLAGS_minloglevel = 2;
  google::InitGoogleLogging(argv[0]);
  if (argc != 4) {
    std::cerr << "net_time NET WEIGHTS|- TRAIN|TEST\n";
    return 2;
  }
  Caffe::set_mode(Caffe::CPU);
  Caffe::set_random_seed(1);
  Net<float> net(argv[1], std::string(argv[3]) == "TRAIN" ? caffe::TRAIN : caffe::TEST);
  if (std::string(argv[2]) != "-") { net.CopyTrainedLayersFrom(argv[2]); }
  Fill(&net, 2);
  Sgd sgd(&net);
  std::string word;
  while (std::cin >> word) {
    const double start = Now();
    if (word == "forward") {
      net.Forward();
      std::cout << Now() - start << std::endl;
    } else if (word == "warm") {
      double seconds, before = start;
      std::cin >> seconds;
      while (before < start + 1e3 * seconds) {
        net.Forward();
        before = Now();
      }
      net.Forward();
      std::cout << Now() - before << std::endl;
    } else if (word == "backward") {
      net.Backward();
      std::cout << Now() - start << std::endl;
    } else if (word == "step") {
      sgd.Step();
      std::cout << Now() - start << std::endl;
    } else if (word == "wait") {
      net.ForwardFromTo(0, 0);
      const double waited = Now() - start;
      net.ForwardFrom(1);
      net.Backward();
      std::cout << waited << ' ' << Now() - start << std::endl;
    } else if (word == "peak") {
      std::cout << PeakMiB() << std::endl;
    } else {
      std::cerr << "unknown word " << word << "\n";
      return 2;
    }
  }
  return 0;
}
