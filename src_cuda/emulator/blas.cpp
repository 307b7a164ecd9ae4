// cuBLAS by OpenBLAS, and cuRAND by the standard library, on the device's memory.
#include <cblas.h>

#include <random>

#include "cublas_v2.h"
#include "curand.h"
#include "internal.hpp"

namespace {

using emulator::CountToHost;
using emulator::Opened;
using emulator::ReadRange;
using emulator::WriteRange;

CBLAS_TRANSPOSE Order(const cublasOperation_t operation) {
  return operation == CUBLAS_OP_N ? CblasNoTrans : CblasTrans;
}

/// Numbers that BLAS touches in a matrix stored by columns, or in a vector.
template <typename T>
size_t Extent(const int rows, const int columns, const int leading) {
  if (rows == 0 || columns == 0) { return 0; }
  return (static_cast<size_t>(columns - 1) * leading + rows) * sizeof(T);
}

template <typename T>
size_t Extent(const int count, const int step) {
  return count == 0 ? 0 : (static_cast<size_t>(count - 1) * step + 1) * sizeof(T);
}

int handle;

}  // namespace

cublasStatus_t cublasCreate(cublasHandle_t* made) {
  *made = &handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy(cublasHandle_t) { return CUBLAS_STATUS_SUCCESS; }

#define EMULATOR_BLAS(T, S, s)                                                                                         \
  cublasStatus_t EMULATOR_NAME(S, gemm)(cublasHandle_t, cublasOperation_t trans_a, cublasOperation_t trans_b, int m,   \
                                        int n, int k, const T* alpha, const T* a, int lda, const T* b, int ldb,        \
                                        const T* beta, T* c, int ldc) {                                                \
    const bool plain_a = trans_a == CUBLAS_OP_N, plain_b = trans_b == CUBLAS_OP_N;                                     \
    if (m < 0 || n < 0 || k < 0 || lda < std::max(1, plain_a ? m : k) || ldb < std::max(1, plain_b ? k : n) ||         \
        ldc < std::max(1, m)) {                                                                                        \
      return CUBLAS_STATUS_INVALID_VALUE;                                                                              \
    }                                                                                                                  \
    Opened open;                                                                                                       \
    ReadRange("cublas" #S "gemm", a, Extent<T>(plain_a ? m : k, plain_a ? k : m, lda));                                \
    ReadRange("cublas" #S "gemm", b, Extent<T>(plain_b ? k : n, plain_b ? n : k, ldb));                                \
    if (*beta != 0) { ReadRange("cublas" #S "gemm", c, Extent<T>(m, n, ldc)); }                                        \
    WriteRange("cublas" #S "gemm", c, Extent<T>(m, n, ldc));                                                           \
    cblas_##s##gemm(CblasColMajor, Order(trans_a), Order(trans_b), m, n, k, *alpha, a, lda, b, ldb, *beta, c, ldc);    \
    return CUBLAS_STATUS_SUCCESS;                                                                                      \
  }                                                                                                                    \
  cublasStatus_t EMULATOR_NAME(S, gemv)(cublasHandle_t, cublasOperation_t trans, int m, int n, const T* alpha,         \
                                        const T* a, int lda, const T* x, int incx, const T* beta, T* y, int incy) {    \
    if (m < 0 || n < 0 || lda < std::max(1, m)) { return CUBLAS_STATUS_INVALID_VALUE; }                                \
    const int length = trans == CUBLAS_OP_N ? n : m, results = trans == CUBLAS_OP_N ? m : n;                           \
    Opened open;                                                                                                       \
    ReadRange("cublas" #S "gemv", a, Extent<T>(m, n, lda));                                                            \
    ReadRange("cublas" #S "gemv", x, Extent<T>(length, incx));                                                         \
    if (*beta != 0) { ReadRange("cublas" #S "gemv", y, Extent<T>(results, incy)); }                                    \
    WriteRange("cublas" #S "gemv", y, Extent<T>(results, incy));                                                       \
    cblas_##s##gemv(CblasColMajor, Order(trans), m, n, *alpha, a, lda, x, incx, *beta, y, incy);                       \
    return CUBLAS_STATUS_SUCCESS;                                                                                      \
  }                                                                                                                    \
  cublasStatus_t EMULATOR_NAME(S, axpy)(cublasHandle_t, int n, const T* alpha, const T* x, int incx, T* y, int incy) { \
    Opened open;                                                                                                       \
    ReadRange("cublas" #S "axpy", x, Extent<T>(n, incx));                                                              \
    ReadRange("cublas" #S "axpy", y, Extent<T>(n, incy));                                                              \
    WriteRange("cublas" #S "axpy", y, Extent<T>(n, incy));                                                             \
    cblas_##s##axpy(n, *alpha, x, incx, y, incy);                                                                      \
    return CUBLAS_STATUS_SUCCESS;                                                                                      \
  }                                                                                                                    \
  cublasStatus_t EMULATOR_NAME(S, copy)(cublasHandle_t, int n, const T* x, int incx, T* y, int incy) {                 \
    Opened open;                                                                                                       \
    ReadRange("cublas" #S "copy", x, Extent<T>(n, incx));                                                              \
    WriteRange("cublas" #S "copy", y, Extent<T>(n, incy));                                                             \
    cblas_##s##copy(n, x, incx, y, incy);                                                                              \
    return CUBLAS_STATUS_SUCCESS;                                                                                      \
  }                                                                                                                    \
  cublasStatus_t EMULATOR_NAME(S, scal)(cublasHandle_t, int n, const T* alpha, T* x, int incx) {                       \
    Opened open;                                                                                                       \
    ReadRange("cublas" #S "scal", x, Extent<T>(n, incx));                                                              \
    WriteRange("cublas" #S "scal", x, Extent<T>(n, incx));                                                             \
    cblas_##s##scal(n, *alpha, x, incx);                                                                               \
    return CUBLAS_STATUS_SUCCESS;                                                                                      \
  }                                                                                                                    \
  cublasStatus_t EMULATOR_NAME(S, dot)(cublasHandle_t, int n, const T* x, int incx, const T* y, int incy, T* result) { \
    Opened open;                                                                                                       \
    ReadRange("cublas" #S "dot", x, Extent<T>(n, incx));                                                               \
    ReadRange("cublas" #S "dot", y, Extent<T>(n, incy));                                                               \
    CountToHost(sizeof(T));                                                                                            \
    *result = cblas_##s##dot(n, x, incx, y, incy);                                                                     \
    return CUBLAS_STATUS_SUCCESS;                                                                                      \
  }                                                                                                                    \
  cublasStatus_t EMULATOR_NAME(S, asum)(cublasHandle_t, int n, const T* x, int incx, T* result) {                      \
    Opened open;                                                                                                       \
    ReadRange("cublas" #S "asum", x, Extent<T>(n, incx));                                                              \
    CountToHost(sizeof(T));                                                                                            \
    *result = cblas_##s##asum(n, x, incx);                                                                             \
    return CUBLAS_STATUS_SUCCESS;                                                                                      \
  }
EMULATOR_BLAS(float, S, s)
EMULATOR_BLAS(double, D, d)

struct EmulatedGenerator {
  std::mt19937_64 values;
};

namespace {

template <typename T, typename Distribution>
curandStatus_t Generate(curandGenerator_t generator, T* to, const size_t count, Distribution distribution) {
  Opened open;
  WriteRange("curandGenerate", to, count * sizeof(T));
  for (size_t i = 0; i < count; ++i) { to[i] = static_cast<T>(distribution(generator->values)); }
  return CURAND_STATUS_SUCCESS;
}

}  // namespace

curandStatus_t curandCreateGenerator(curandGenerator_t* generator, curandRngType_t) {
  *generator = new EmulatedGenerator();
  return CURAND_STATUS_SUCCESS;
}
curandStatus_t curandDestroyGenerator(curandGenerator_t generator) {
  delete generator;
  return CURAND_STATUS_SUCCESS;
}
curandStatus_t curandSetPseudoRandomGeneratorSeed(curandGenerator_t generator, unsigned long long seed) {  // NOLINT
  generator->values.seed(seed);
  return CURAND_STATUS_SUCCESS;
}
curandStatus_t curandSetGeneratorOffset(curandGenerator_t, unsigned long long) {  // NOLINT(runtime/int)
  return CURAND_STATUS_SUCCESS;
}
curandStatus_t curandGenerate(curandGenerator_t generator, unsigned* to, size_t count) {
  return Generate(generator, to, count, std::uniform_int_distribution<unsigned>());
}
curandStatus_t curandGenerateUniform(curandGenerator_t generator, float* to, size_t count) {
  return Generate(generator, to, count, std::uniform_real_distribution<float>());
}
curandStatus_t curandGenerateUniformDouble(curandGenerator_t generator, double* to, size_t count) {
  return Generate(generator, to, count, std::uniform_real_distribution<double>());
}
curandStatus_t curandGenerateNormal(curandGenerator_t generator, float* to, size_t count, float mean, float deviation) {
  return Generate(generator, to, count, std::normal_distribution<float>(mean, deviation));
}
curandStatus_t curandGenerateNormalDouble(curandGenerator_t generator, double* to, size_t count, double mean,
                                          double deviation) {
  return Generate(generator, to, count, std::normal_distribution<double>(mean, deviation));
}
