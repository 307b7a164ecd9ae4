#ifndef CAFFE_UTIL_CUDNN_H_
#define CAFFE_UTIL_CUDNN_H_
#ifdef USE_CUDNN

#include <cudnn.h>

#include "caffe/common.hpp"
#include "caffe/proto/caffe.pb.h"

#if CUDNN_MAJOR < 8
#error "cuDNN 8 or later is needed"
#endif

// cuDNN 9 counts a major version as 10000, those before as 1000.
#define CUDNN_VERSION_MIN(major, minor, patch) \
  (CUDNN_VERSION >= ((major) < 9 ? 1000 : 10000) * (major) + 100 * (minor) + (patch))

#define CUDNN_CHECK(condition)                                                    \
  do {                                                                            \
    const cudnnStatus_t status = condition;                                       \
    CHECK_EQ(status, CUDNN_STATUS_SUCCESS) << " " << cudnnGetErrorString(status); \
  } while (0)

/**
 * cuDNN for Caffe's layers. dataType and the functions create.. and set.. have
 * the names that the fork's cuDNN layers use.
 */
namespace caffe {
namespace cudnn {

/// cuDNN's constant for the type, and 1 and 0 as scaling arguments of it.
template <typename Dtype>
class dataType;
template <>
class dataType<float> {
 public:
  static const cudnnDataType_t type = CUDNN_DATA_FLOAT;
  static const void *one, *zero;
};
template <>
class dataType<double> {
 public:
  static const cudnnDataType_t type = CUDNN_DATA_DOUBLE;
  static const void *one, *zero;
};

template <typename Dtype>
inline void createTensor4dDesc(cudnnTensorDescriptor_t* desc) {
  CUDNN_CHECK(cudnnCreateTensorDescriptor(desc));
}

template <typename Dtype>
inline void setTensor4dDesc(cudnnTensorDescriptor_t* desc, int n, int c, int h, int w, int stride_n, int stride_c,
                            int stride_h, int stride_w) {
  CUDNN_CHECK(
      cudnnSetTensor4dDescriptorEx(*desc, dataType<Dtype>::type, n, c, h, w, stride_n, stride_c, stride_h, stride_w));
}

/// NCHW without gaps.
template <typename Dtype>
inline void setTensor4dDesc(cudnnTensorDescriptor_t* desc, int n, int c, int h, int w) {
  CUDNN_CHECK(cudnnSetTensor4dDescriptor(*desc, CUDNN_TENSOR_NCHW, dataType<Dtype>::type, n, c, h, w));
}

template <typename Dtype>
inline void createPoolingDesc(cudnnPoolingDescriptor_t* desc, PoolingParameter_PoolMethod method,
                              cudnnPoolingMode_t* mode, int h, int w, int pad_h, int pad_w, int stride_h,
                              int stride_w) {
  CHECK(method == PoolingParameter_PoolMethod_MAX || method == PoolingParameter_PoolMethod_AVE)
      << "pooling method " << PoolingParameter_PoolMethod_Name(method)
      << " is not available in cuDNN, which has MAX and AVE.";
  *mode = method == PoolingParameter_PoolMethod_MAX ? CUDNN_POOLING_MAX : CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING;
  CUDNN_CHECK(cudnnCreatePoolingDescriptor(desc));
  CUDNN_CHECK(cudnnSetPooling2dDescriptor(*desc, *mode, CUDNN_PROPAGATE_NAN, h, w, pad_h, pad_w, stride_h, stride_w));
}

template <typename Dtype>
inline void createActivationDescriptor(cudnnActivationDescriptor_t* desc, cudnnActivationMode_t mode) {
  CUDNN_CHECK(cudnnCreateActivationDescriptor(desc));
  CUDNN_CHECK(cudnnSetActivationDescriptor(*desc, mode, CUDNN_PROPAGATE_NAN, 0.));
}

/// A cuDNN descriptor that is created and destroyed with this object.
template <typename T, cudnnStatus_t (*Create)(T*), cudnnStatus_t (*Destroy)(T)>
class Descriptor {
 public:
  Descriptor() { CUDNN_CHECK(Create(&it_)); }
  ~Descriptor() { Destroy(it_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator T() const { return it_; }

 private:
  T it_;
};

typedef Descriptor<cudnnTensorDescriptor_t, cudnnCreateTensorDescriptor, cudnnDestroyTensorDescriptor> TensorDescriptor;
typedef Descriptor<cudnnFilterDescriptor_t, cudnnCreateFilterDescriptor, cudnnDestroyFilterDescriptor> FilterDescriptor;
typedef Descriptor<cudnnConvolutionDescriptor_t, cudnnCreateConvolutionDescriptor, cudnnDestroyConvolutionDescriptor>
    ConvolutionDescriptor;

/// Default limit for the workspace of an algorithm, in bytes of GPU memory; the
/// environment variable CAFFE_CUDNN_WORKSPACE_MB sets another one.
const size_t kWorkspaceLimit = size_t(256) << 20;

/**
 * The handle and the workspace of one thread on one device. The thread's layers
 * run one after another on the default stream and share both, so the workspace
 * is as large as the largest that a layer needs, not as their sum.
 */
class Session {
 public:
  /// The calling thread's, on its current device.
  static Session& Get();
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  cudnnHandle_t handle() const { return handle_; }
  /// Makes the workspace this large at least; false if the device lacks the memory.
  bool Reserve(size_t bytes);
  /// A workspace of at least this size, null for 0; valid until the next Reserve.
  void* Workspace(size_t bytes);
  size_t capacity() const { return capacity_; }

 private:
  Session();

  cudnnHandle_t handle_;
  void* workspace_;
  size_t capacity_;
};

/// kWorkspaceLimit, or CAFFE_CUDNN_WORKSPACE_MB.
size_t WorkspaceLimit();
/// CUDNN_FMA_MATH: every product in full float. Where CAFFE_CUDNN_TF32 is 1,
/// CUDNN_DEFAULT_MATH: tensor cores may round floats to 10 bits of mantissa.
cudnnMathType_t MathType();
/// Whether CAFFE_CUDNN_DETERMINISTIC is 1: only algorithms that give the same
/// bits at each run.
bool Deterministic();

}  // namespace cudnn
}  // namespace caffe

#endif  // USE_CUDNN
#endif  // CAFFE_UTIL_CUDNN_H_
