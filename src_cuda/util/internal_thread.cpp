// The thread of a data layer: it starts with the settings of the thread that creates it (mode, device, solver, and a
// seed drawn from its random numbers). The device is used in GPU mode only, so that a GPU build trains and tests on the
// CPU of a machine without a GPU.
#include "caffe/internal_thread.hpp"

#include <boost/thread.hpp>

#include <exception>

#include "caffe/util/math_functions.hpp"

namespace caffe {

InternalThread::~InternalThread() { StopInternalThread(); }

bool InternalThread::is_started() const { return thread_ != nullptr && thread_->joinable(); }

bool InternalThread::must_stop() { return thread_ != nullptr && thread_->interruption_requested(); }

void InternalThread::StartInternalThread() {
  CHECK(!is_started()) << "this thread is already running";
  int device = 0;
#ifndef CPU_ONLY
  if (Caffe::mode() == Caffe::GPU) { CUDA_CHECK(cudaGetDevice(&device)); }
#endif
  const int seed = caffe_rng_rand();
  try {
    thread_.reset(new boost::thread(&InternalThread::entry, this, device, Caffe::mode(), seed, Caffe::solver_count(),
                                    Caffe::root_solver()));
  } catch (const std::exception& error) { LOG(FATAL) << "a thread cannot be started: " << error.what(); }
}

void InternalThread::entry(const int device, const Caffe::Brew mode, const int seed, const int solver_count,
                           const bool root_solver) {
#ifndef CPU_ONLY
  if (mode == Caffe::GPU) { CUDA_CHECK(cudaSetDevice(device)); }
#endif
  Caffe::set_mode(mode);
  Caffe::set_random_seed(seed);
  Caffe::set_solver_count(solver_count);
  Caffe::set_root_solver(root_solver);
  InternalThreadEntry();
}

void InternalThread::StopInternalThread() {
  if (!is_started()) { return; }
  thread_->interrupt();
  try {
    thread_->join();
  } catch (const boost::thread_interrupted&) {
    // The calling thread was itself told to stop: it goes on to its own end.
  } catch (const std::exception& error) { LOG(FATAL) << "a thread cannot be stopped: " << error.what(); }
}

}  // namespace caffe
