// The part of CUDA's run time that Caffe calls, on memory of the host: memory.cpp.
#ifndef SSDLITE_CAFFE_EMULATOR_CUDA_RUNTIME_H_
#define SSDLITE_CAFFE_EMULATOR_CUDA_RUNTIME_H_

#include <cstddef>

#define __global__
#define __launch_bounds__(...)  // for registers
#define __device__
#define __host__

#define CUDA_VERSION 12000
#define CUDART_VERSION 12000

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};

struct EmulatedEvent;
typedef int* cudaStream_t;
typedef EmulatedEvent* cudaEvent_t;
#define cudaStreamDefault 0
#define cudaStreamNonBlocking 1

struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem, sharedMemPerBlock, memPitch, totalConstMem, textureAlignment;
  int regsPerBlock, warpSize, maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3], clockRate, major, minor;
  int deviceOverlap, multiProcessorCount, kernelExecTimeoutEnabled;
};

extern "C" {
cudaError_t cudaMalloc(void** at, size_t size);
cudaError_t cudaFree(void* at);
cudaError_t cudaMallocHost(void** at, size_t size);
cudaError_t cudaFreeHost(void* at);
cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemset(void* at, int value, size_t size);

cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorString(cudaError_t error);

cudaError_t cudaGetDevice(int* device);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaSetDevice(int device);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to);
}

template <typename T>
cudaError_t cudaMalloc(T** at, size_t size) {
  return cudaMalloc(reinterpret_cast<void**>(at), size);
}

#endif  // SSDLITE_CAFFE_EMULATOR_CUDA_RUNTIME_H_
