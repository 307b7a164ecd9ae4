// The part of cuBLAS that Caffe calls, by OpenBLAS: blas.cpp.
#ifndef SSDLITE_CAFFE_EMULATOR_CUBLAS_V2_H_
#define SSDLITE_CAFFE_EMULATOR_CUBLAS_V2_H_

#include "cuda_runtime.h"

enum cublasStatus_t {
  CUBLAS_STATUS_SUCCESS = 0,
  CUBLAS_STATUS_NOT_INITIALIZED = 1,
  CUBLAS_STATUS_ALLOC_FAILED = 3,
  CUBLAS_STATUS_INVALID_VALUE = 7,
  CUBLAS_STATUS_ARCH_MISMATCH = 8,
  CUBLAS_STATUS_MAPPING_ERROR = 11,
  CUBLAS_STATUS_EXECUTION_FAILED = 13,
  CUBLAS_STATUS_INTERNAL_ERROR = 14,
  CUBLAS_STATUS_NOT_SUPPORTED = 15,
  CUBLAS_STATUS_LICENSE_ERROR = 16
};
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
typedef int* cublasHandle_t;

// The names in the library.
#define cublasCreate cublasCreate_v2
#define cublasDestroy cublasDestroy_v2
#define EMULATOR_NAME(S, name) cublas##S##name##_v2
#define cublasSgemm cublasSgemm_v2
#define cublasDgemm cublasDgemm_v2
#define cublasSgemv cublasSgemv_v2
#define cublasDgemv cublasDgemv_v2
#define cublasSaxpy cublasSaxpy_v2
#define cublasDaxpy cublasDaxpy_v2
#define cublasScopy cublasScopy_v2
#define cublasDcopy cublasDcopy_v2
#define cublasSscal cublasSscal_v2
#define cublasDscal cublasDscal_v2
#define cublasSdot cublasSdot_v2
#define cublasDdot cublasDdot_v2
#define cublasSasum cublasSasum_v2
#define cublasDasum cublasDasum_v2

extern "C" {
cublasStatus_t cublasCreate(cublasHandle_t* handle);
cublasStatus_t cublasDestroy(cublasHandle_t handle);

#define EMULATOR_BLAS(T, S)                                                                                            \
  cublasStatus_t EMULATOR_NAME(S, gemm)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m, int n, int k,     \
                                        const T* alpha, const T* a, int lda, const T* b, int ldb, const T* beta, T* c, \
                                        int ldc);                                                                      \
  cublasStatus_t EMULATOR_NAME(S, gemv)(cublasHandle_t, cublasOperation_t, int m, int n, const T* alpha, const T* a,   \
                                        int lda, const T* x, int incx, const T* beta, T* y, int incy);                 \
  cublasStatus_t EMULATOR_NAME(S, axpy)(cublasHandle_t, int n, const T* alpha, const T* x, int incx, T* y, int incy);  \
  cublasStatus_t EMULATOR_NAME(S, copy)(cublasHandle_t, int n, const T* x, int incx, T* y, int incy);                  \
  cublasStatus_t EMULATOR_NAME(S, scal)(cublasHandle_t, int n, const T* alpha, T* x, int incx);                        \
  cublasStatus_t EMULATOR_NAME(S, dot)(cublasHandle_t, int n, const T* x, int incx, const T* y, int incy, T* result);  \
  cublasStatus_t EMULATOR_NAME(S, asum)(cublasHandle_t, int n, const T* x, int incx, T* result);
EMULATOR_BLAS(float, S)
EMULATOR_BLAS(double, D)
#undef EMULATOR_BLAS
}

#endif  // SSDLITE_CAFFE_EMULATOR_CUBLAS_V2_H_
