#ifndef CAFFE_UTIL_CPU_GEMM_HPP_
#define CAFFE_UTIL_CPU_GEMM_HPP_

#include <cstddef>

namespace caffe {

/**
 * Matrix products of the shapes that convolutions have, row-major, on the layers' own threads (parallel.hpp).
 *
 * The products of a small net are short. A general BLAS spends much of their time on copying operands and waking
 * threads, and its threads spin while ours work.
 */

/// C (M x N) = A (M x K) B (K x N) [+ bias of the row] [+ C]. transposed: A is stored as K x M. bias: a value for each
/// row, or null. keep: the product is added to C.
template <typename Dtype>
void CpuGemm(bool transposed, int M, int N, int K, const Dtype* A, const Dtype* B, const Dtype* bias, bool keep,
             Dtype* C);

/// C (M x columns, rows ldc apart) = A (M x K) B [+ bias of the row], on the calling thread. Row k of B begins at B +
/// starts[k] and is read in whole vectors: values past `columns` must be readable and are not used.
template <typename Dtype>
void CpuGemmPlaced(int M, int columns, int K, const Dtype* A, const Dtype* B, const int* starts, const Dtype* bias,
                   size_t ldc, Dtype* C);

/// C (M x N) += A (M x K) B^T, with B stored as N x K: for gradients of weights, where K is large.
template <typename Dtype>
void CpuGemmTransposed(int M, int N, int K, const Dtype* A, const Dtype* B, Dtype* C);

}  // namespace caffe

#endif  // CAFFE_UTIL_CPU_GEMM_HPP_
