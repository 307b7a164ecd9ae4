#ifndef CAFFE_UTIL_CPU_GEMM_HPP_
#define CAFFE_UTIL_CPU_GEMM_HPP_

#include <cstddef>

namespace caffe {

/**
 * Matrix products of the shapes that convolutions have, row-major, on the layers' own threads (parallel.hpp).
 *
 * The products of a small net are short: on 2 threads a general BLAS spends much of its time on copying operands, on
 * waking its threads, and, while ours work, on threads of its own that spin.
 */

/// C (M x N) = A (M x K) B (K x N) [+ bias of the row] [+ C]. transposed: A lies as K x M. bias may be null;
/// keep: what C holds is added to.
template <typename Dtype>
void CpuGemm(bool transposed, int M, int N, int K, const Dtype* A, const Dtype* B, const Dtype* bias, bool keep,
             Dtype* C);

/// C (M x columns, rows ldc apart) = A (M x K) B [+ bias of the row] on this thread. Row k of B begins at B +
/// starts[k]; it is read by whole vectors, of which what lies beyond `columns` is not used.
template <typename Dtype>
void CpuGemmPlaced(int M, int columns, int K, const Dtype* A, const Dtype* B, const int* starts, const Dtype* bias,
                   size_t ldc, Dtype* C);

/// C (M x N) += A (M x K) B^T, B lying as N x K: for gradients of weights, where K is long.
template <typename Dtype>
void CpuGemmTransposed(int M, int N, int K, const Dtype* A, const Dtype* B, Dtype* C);

}  // namespace caffe

#endif  // CAFFE_UTIL_CPU_GEMM_HPP_
