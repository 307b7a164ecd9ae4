#include "caffe/syncedmem.hpp"

#include <mutex>

#include "caffe/common.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

void CaffeMallocHost(void** ptr, const size_t size, bool* use_cuda) {
#ifndef CPU_ONLY
  if (Caffe::mode() == Caffe::GPU) {
    CUDA_CHECK(cudaMallocHost(ptr, size));
    *use_cuda = true;
    return;
  }
#endif
  *ptr = malloc(size);
  *use_cuda = false;
  CHECK(*ptr != nullptr || size == 0) << "There are no " << size << " bytes of memory left.";
}

void CaffeFreeHost(void* ptr, const bool use_cuda) {
#ifndef CPU_ONLY
  if (use_cuda) {
    CUDA_CHECK(cudaFreeHost(ptr));
    return;
  }
#endif
  free(ptr);
}

namespace {

thread_local int passing = 0;
std::mutex writing;

}  // namespace

SyncedMemory::Passing::Passing() { ++passing; }

SyncedMemory::Passing::~Passing() { --passing; }

void SyncedMemory::Expose() {
  if (passing == 0 && !exposed()) { exposed_.store(true, std::memory_order_relaxed); }
}

/// The values are those here now, and others can be written.
void SyncedMemory::Written() {
  Defer(nullptr, true);
  ++writes_;
  if (passing == 0) { writable_elsewhere_ = true; }
}

SyncedMemory::~SyncedMemory() {
  FreeCpu();
#ifndef CPU_ONLY
  FreeGpu();
#endif
}

void SyncedMemory::FreeCpu() {
  if (cpu_ptr_ != nullptr && own_cpu_data_) { CaffeFreeHost(cpu_ptr_, cpu_malloc_use_cuda_); }
}

#ifndef CPU_ONLY
void SyncedMemory::MallocGpu() {
  CUDA_CHECK(cudaGetDevice(&gpu_device_));
  CUDA_CHECK(cudaMalloc(&gpu_ptr_, size_));
  own_gpu_data_ = true;
}

void SyncedMemory::FreeGpu() {
  if (gpu_ptr_ == nullptr || !own_gpu_data_) { return; }
  int current;
  cudaGetDevice(&current);
  if (gpu_device_ != -1) { CUDA_CHECK(cudaSetDevice(gpu_device_)); }
  CUDA_CHECK(cudaFree(gpu_ptr_));
  cudaSetDevice(current);
}
#endif

void SyncedMemory::WriteDeferred() {
  if (written_) { return; }
  const std::lock_guard<std::mutex> lock(writing);
  if (written_) { return; }
  if (cpu_ptr_ == nullptr) {
    CaffeMallocHost(&cpu_ptr_, size_, &cpu_malloc_use_cuda_);
    caffe_memset(size_, 0, cpu_ptr_);  // the blob may have been larger than it is now
    own_cpu_data_ = true;
  }
  deferred_->WriteTo(cpu_ptr_);
  head_ = HEAD_AT_CPU;
  written_ = true;
}

void SyncedMemory::to_cpu() {
  WriteDeferred();
  switch (head_) {
    case UNINITIALIZED:
      CaffeMallocHost(&cpu_ptr_, size_, &cpu_malloc_use_cuda_);
      caffe_memset(size_, 0, cpu_ptr_);
      head_ = HEAD_AT_CPU;
      own_cpu_data_ = true;
      break;
    case HEAD_AT_GPU:
#ifndef CPU_ONLY
      if (cpu_ptr_ == nullptr) {
        CaffeMallocHost(&cpu_ptr_, size_, &cpu_malloc_use_cuda_);
        own_cpu_data_ = true;
      }
      caffe_gpu_memcpy(size_, gpu_ptr_, cpu_ptr_);
      head_ = SYNCED;
#else
      NO_GPU;
#endif
      break;
    case HEAD_AT_CPU:
    case SYNCED: break;
  }
}

void SyncedMemory::to_gpu() {
#ifndef CPU_ONLY
  WriteDeferred();
  switch (head_) {
    case UNINITIALIZED:
      MallocGpu();
      caffe_gpu_memset(size_, 0, gpu_ptr_);
      head_ = HEAD_AT_GPU;
      break;
    case HEAD_AT_CPU:
      if (gpu_ptr_ == nullptr) { MallocGpu(); }
      caffe_gpu_memcpy(size_, cpu_ptr_, gpu_ptr_);
      head_ = SYNCED;
      break;
    case HEAD_AT_GPU:
    case SYNCED: break;
  }
#else
  NO_GPU;
#endif
}

const void* SyncedMemory::cpu_data() {
  Expose();
  to_cpu();
  return cpu_ptr_;
}

void SyncedMemory::set_cpu_data(void* data) {
  CHECK(data);
  FreeCpu();
  cpu_ptr_ = data;
  head_ = HEAD_AT_CPU;
  own_cpu_data_ = false;
  exposed_ = true;
  Written();
  writable_elsewhere_ = true;
}

const void* SyncedMemory::gpu_data() {
  Expose();
  to_gpu();
  return gpu_ptr_;
}

void SyncedMemory::set_gpu_data(void* data) {
#ifndef CPU_ONLY
  CHECK(data);
  FreeGpu();
  gpu_ptr_ = data;
  head_ = HEAD_AT_GPU;
  own_gpu_data_ = false;
  Written();
  writable_elsewhere_ = true;
#else
  NO_GPU;
#endif
}

void* SyncedMemory::mutable_cpu_data() {
  Expose();
  to_cpu();
  head_ = HEAD_AT_CPU;
  Written();
  return cpu_ptr_;
}

void* SyncedMemory::mutable_gpu_data() {
  Expose();
  to_gpu();
  head_ = HEAD_AT_GPU;
  Written();
  return gpu_ptr_;
}

#ifndef CPU_ONLY
void SyncedMemory::async_gpu_push(const cudaStream_t& stream) {
  CHECK(head() == HEAD_AT_CPU);
  if (gpu_ptr_ == nullptr) { MallocGpu(); }
  CUDA_CHECK(cudaMemcpyAsync(gpu_ptr_, cpu_ptr_, size_, cudaMemcpyHostToDevice, stream));
  // Who waits for the stream reads it then.
  head_ = SYNCED;
}
#endif

}  // namespace caffe
