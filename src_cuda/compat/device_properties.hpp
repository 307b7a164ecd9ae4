// Force-included into the fork's common.cpp alone: `caffe device_query` prints three properties of a device that CUDA
// 13 has removed from cudaDeviceProp and offers as attributes.
#ifndef SSDLITE_CAFFE_COMPAT_DEVICE_PROPERTIES_HPP_
#define SSDLITE_CAFFE_COMPAT_DEVICE_PROPERTIES_HPP_

#include <cuda_runtime.h>

// Headers that use CUDA's own struct come before its name is redefined.
#include "caffe/util/device_alternate.hpp"

#if CUDART_VERSION >= 13000
struct DeviceProperties : cudaDeviceProp {
  int clockRate, deviceOverlap, kernelExecTimeoutEnabled;
};

inline cudaError_t cudaGetDeviceProperties(DeviceProperties* properties, const int device) {
  cudaError_t error = cudaGetDeviceProperties(static_cast<cudaDeviceProp*>(properties), device);
  const auto get = [&](int* value, const cudaDeviceAttr attribute) {
    if (error == cudaSuccess) { error = cudaDeviceGetAttribute(value, attribute, device); }
  };
  get(&properties->clockRate, cudaDevAttrClockRate);
  get(&properties->deviceOverlap, cudaDevAttrGpuOverlap);
  get(&properties->kernelExecTimeoutEnabled, cudaDevAttrKernelExecTimeout);
  return error;
}
#define cudaDeviceProp DeviceProperties
#endif

#endif  // SSDLITE_CAFFE_COMPAT_DEVICE_PROPERTIES_HPP_
