// The command `caffe`: train, test, time and device_query, with the flags of the public one, and forward.
//
// It replaces the fork's own tool for one reason: that one accepts --weights for `train` and never reads them, so
// finetuning would start from random numbers without a warning. Also, it logs to stderr only, not to files in /tmp.
#include <gflags/gflags.h>
#include <glog/logging.h>

#include <algorithm>
#include <functional>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "caffe/caffe.hpp"
#include "caffe/util/signal_handler.h"
#include "caffe/util/upgrade_proto.hpp"
#include "npy.hpp"

DEFINE_string(solver, "", "Solver prototxt (train).");
DEFINE_string(model, "", "Net prototxt (test, time, forward).");
DEFINE_string(weights, "",
              "Caffemodels to start from or to test, separated by ','; not together with "
              "--snapshot.");
DEFINE_string(snapshot, "", "Solverstate to go on from (train).");
DEFINE_string(gpu, "", "Number of the GPU to run on; without it the solver's mode counts.");
DEFINE_string(phase, "", "TRAIN or TEST (time); TRAIN by default.");
DEFINE_int32(level, 0, "Level of the net's state.");
DEFINE_string(stage, "", "Stages of the net's state, separated by ','.");
DEFINE_int32(iterations, 50, "How many batches (test, time).");
DEFINE_int32(repeat, 1, "How often a layer runs in one measurement (time); the time shown is that of one run.");
DEFINE_string(inputs, "", "BLOB=FILE.npy for each input blob, separated by ',' (forward).");
DEFINE_string(outputs, "", "Blobs to write, separated by ','; by default the net's outputs (forward).");
DEFINE_string(out, ".", "Where forward writes BLOB.npy, with '_' for a '/' in a blob's name.");
DEFINE_string(sigint_effect, "stop", "What SIGINT does: snapshot, stop or none; stop ends in a snapshot, too.");
DEFINE_string(sighup_effect, "snapshot", "What SIGHUP does: snapshot, stop or none.");

namespace {

using caffe::Blob;
using caffe::Caffe;
using caffe::Net;
using std::string;
using std::vector;

vector<string> Split(const string& list) {
  vector<string> parts;
  std::istringstream stream(list);
  for (string part; std::getline(stream, part, ',');) {
    if (!part.empty()) { parts.push_back(part); }
  }
  return parts;
}

// The GPU asked for, -1 for none.
int Device() {
  if (FLAGS_gpu.empty()) { return -1; }
  std::istringstream stream(FLAGS_gpu);
  int device = -1;
  CHECK(stream >> device && stream.eof() && device >= 0)
      << "--gpu takes the number of one GPU, not '" << FLAGS_gpu << "'";
  return device;
}

void SetMode(int device) {
  if (device < 0) {
    LOG(INFO) << "Use CPU.";
    Caffe::set_mode(Caffe::CPU);
    return;
  }
#ifdef CPU_ONLY
  LOG(FATAL) << "This Caffe is built for the CPU alone, but --gpu or the solver asks for GPU " << device;
#else
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (device >= devices) {
    LOG(FATAL) << "GPU " << device << " is asked for, and this machine has " << devices
               << (error == cudaSuccess ? "" : string(": ") + cudaGetErrorString(error));
  }
  LOG(INFO) << "Use GPU " << device;
  Caffe::SetDevice(device);
  Caffe::set_mode(Caffe::GPU);
#endif
}

caffe::SolverAction::Enum Effect(const string& name) {
  const std::map<string, caffe::SolverAction::Enum> effects = {{"stop", caffe::SolverAction::STOP},
                                                               {"snapshot", caffe::SolverAction::SNAPSHOT},
                                                               {"none", caffe::SolverAction::NONE}};
  const auto found = effects.find(name);
  CHECK(found != effects.end()) << "a signal's effect is stop, snapshot or none, not '" << name << "'";
  return found->second;
}

int Train() {
  CHECK(!FLAGS_solver.empty()) << "train needs --solver";
  CHECK(FLAGS_snapshot.empty() || FLAGS_weights.empty())
      << "give --snapshot to go on or --weights to finetune, not both";
  caffe::SolverParameter param;
  caffe::ReadSolverParamsFromTextFileOrDie(FLAGS_solver, &param);
  param.mutable_train_state()->set_level(FLAGS_level);
  for (const string& stage : Split(FLAGS_stage)) { param.mutable_train_state()->add_stage(stage); }
  int device = Device();
  const bool asks_for_gpu = param.has_solver_mode() && param.solver_mode() == caffe::SolverParameter_SolverMode_GPU;
  if (FLAGS_gpu.empty() && asks_for_gpu) { device = std::max(0, param.device_id()); }
  SetMode(device);
  if (device >= 0) { param.set_device_id(device); }
  caffe::SignalHandler signals(Effect(FLAGS_sigint_effect), Effect(FLAGS_sighup_effect));
  caffe::shared_ptr<caffe::Solver<float>> solver(caffe::SolverRegistry<float>::CreateSolver(param));
  solver->SetActionFunction(signals.GetActionFunction());
  for (const string& weights : Split(FLAGS_weights)) {
    LOG(INFO) << "Finetuning from " << weights;
    solver->net()->CopyTrainedLayersFrom(weights);
    for (const auto& test_net : solver->test_nets()) { test_net->CopyTrainedLayersFrom(weights); }
  }
  LOG(INFO) << "Starting Optimization";
  solver->Solve(FLAGS_snapshot.empty() ? nullptr : FLAGS_snapshot.c_str());
  return 0;
}

int Test() {
  CHECK(!FLAGS_model.empty()) << "test needs --model";
  CHECK(!FLAGS_weights.empty()) << "test needs --weights";
  SetMode(Device());
  const vector<string> stages = Split(FLAGS_stage);
  Net<float> net(FLAGS_model, caffe::TEST, FLAGS_level, &stages);
  for (const string& weights : Split(FLAGS_weights)) { net.CopyTrainedLayersFrom(weights); }
  // Sums of the output values over the batches; only outputs that keep their
  // size have a mean.
  std::map<string, vector<double>> sums;
  std::map<string, bool> steady;
  double total_loss = 0;
  for (int i = 0; i < FLAGS_iterations; ++i) {
    float loss = 0;
    const vector<Blob<float>*>& outputs = net.Forward(&loss);
    total_loss += loss;
    for (size_t j = 0; j < outputs.size(); ++j) {
      const string& name = net.blob_names()[net.output_blob_indices()[j]];
      const float* values = outputs[j]->cpu_data();
      vector<double>& sum = sums[name];
      if (i == 0) {
        sum.resize(outputs[j]->count());
        steady[name] = true;
      }
      steady[name] = steady[name] && sum.size() == static_cast<size_t>(outputs[j]->count());
      for (int k = 0; k < outputs[j]->count(); ++k) {
        LOG(INFO) << "Batch " << i << ", " << name << " = " << values[k];
        if (steady[name]) { sum[k] += values[k]; }
      }
    }
  }
  LOG(INFO) << "Loss: " << total_loss / FLAGS_iterations;
  for (const auto& entry : sums) {
    for (const double sum : steady[entry.first] ? entry.second : vector<double>()) {
      LOG(INFO) << entry.first << " = " << sum / FLAGS_iterations;
    }
  }
  return 0;
}

// Milliseconds that one call takes, of --repeat calls one after the other: on a GPU the start of a call is hidden
// behind the call before it.
double Milliseconds(const std::function<void()>& call) {
  caffe::Timer timer;
  timer.Start();
  for (int i = 0; i < FLAGS_repeat; ++i) { call(); }
  return timer.MicroSeconds() / 1000 / FLAGS_repeat;
}

int Time() {
  CHECK(!FLAGS_model.empty()) << "time needs --model";
  CHECK_GE(FLAGS_repeat, 1) << "--repeat must be 1 or more";
  CHECK(FLAGS_phase.empty() || FLAGS_phase == "TRAIN" || FLAGS_phase == "TEST")
      << "--phase is TRAIN or TEST, not '" << FLAGS_phase << "'";
  SetMode(Device());
  const vector<string> stages = Split(FLAGS_stage);
  Net<float> net(FLAGS_model, FLAGS_phase == "TEST" ? caffe::TEST : caffe::TRAIN, FLAGS_level, &stages);
  // The first pass is not timed: it allocates memory.
  float loss = 0;
  net.Forward(&loss);
  net.Backward();
  LOG(INFO) << "Initial loss: " << loss;
  const size_t count = net.layers().size();
  struct Cost {
    double sum = 0, least = std::numeric_limits<double>::infinity();
    void Add(double time) {
      sum += time;
      least = std::min(least, time);
    }
  };
  vector<Cost> forward(count), backward(count);
  Cost all_forward, all_backward, all;
  for (int iteration = 0; iteration < FLAGS_iterations; ++iteration) {
    double there = 0, back = 0;
    for (size_t i = 0; i < count; ++i) {
      const double time = Milliseconds([&] { net.layers()[i]->Forward(net.bottom_vecs()[i], net.top_vecs()[i]); });
      forward[i].Add(time);
      there += time;
    }
    for (size_t i = count; i-- > 0;) {
      const double time = Milliseconds(
          [&] { net.layers()[i]->Backward(net.top_vecs()[i], net.bottom_need_backward()[i], net.bottom_vecs()[i]); });
      backward[i].Add(time);
      back += time;
    }
    all_forward.Add(there);
    all_backward.Add(back);
    all.Add(there + back);
  }
  const auto say = [](const string& what, const Cost& cost) {
    LOG(INFO) << what << ": " << cost.sum / FLAGS_iterations << " ms, least " << cost.least << " ms.";
  };
  LOG(INFO) << "Average time per layer: ";
  for (size_t i = 0; i < count; ++i) {
    say(net.layer_names()[i] + "\tforward", forward[i]);
    say(net.layer_names()[i] + "\tbackward", backward[i]);
  }
  say("Average Forward pass", all_forward);
  say("Average Backward pass", all_backward);
  say("Average Forward-Backward", all);
  return 0;
}

int Forward() {
  CHECK(!FLAGS_model.empty()) << "forward needs --model";
  SetMode(Device());
  const vector<string> stages = Split(FLAGS_stage);
  Net<float> net(FLAGS_model, caffe::TEST, FLAGS_level, &stages);
  for (const string& weights : Split(FLAGS_weights)) { net.CopyTrainedLayersFrom(weights); }
  const auto blob = [&net](const string& name) {
    CHECK(net.has_blob(name)) << FLAGS_model << " has no blob named " << name;
    return net.blob_by_name(name);
  };
  for (const string& input : Split(FLAGS_inputs)) {
    const size_t equals = input.find('=');
    CHECK(equals != string::npos) << "--inputs takes BLOB=FILE.npy, not '" << input << "'";
    const npy::Array array = npy::Read(input.substr(equals + 1));
    const auto to = blob(input.substr(0, equals));
    to->Reshape(array.shape);
    std::copy(array.values.begin(), array.values.end(), to->mutable_cpu_data());
  }
  net.Reshape();
  net.Forward();
  vector<string> outputs = Split(FLAGS_outputs);
  if (outputs.empty()) {
    for (const int index : net.output_blob_indices()) { outputs.push_back(net.blob_names()[index]); }
  }
  for (const string& name : outputs) {
    string file = name;
    std::replace(file.begin(), file.end(), '/', '_');
    npy::Write(FLAGS_out + "/" + file + ".npy", blob(name)->shape(), blob(name)->cpu_data());
  }
  return 0;
}

int DeviceQuery() {
  SetMode(std::max(0, Device()));
  Caffe::DeviceQuery();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  FLAGS_logtostderr = true;
  gflags::SetVersionString(AS_STRING(CAFFE_VERSION));
  gflags::SetUsageMessage(
      "usage: caffe COMMAND FLAGS\n"
      "  train         train or finetune a net\n"
      "  test          run a net on its own data and show its outputs\n"
      "  time          time every layer\n"
      "  forward       run a net on values from .npy files\n"
      "  device_query  describe a GPU");
  caffe::GlobalInit(&argc, &argv);
  const std::map<string, int (*)()> commands = {
      {"train", Train}, {"test", Test}, {"time", Time}, {"forward", Forward}, {"device_query", DeviceQuery}};
  const auto command = argc == 2 ? commands.find(argv[1]) : commands.end();
  if (command == commands.end()) {
    std::cerr << gflags::ProgramUsage() << std::endl;
    return 2;
  }
  return command->second();
}
