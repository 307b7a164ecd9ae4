#include "caffe/util/pointwise_conv.hpp"

#include <algorithm>
#include <cstdint>

#include "caffe/common.hpp"
#include "caffe/util/channel_sums.cuh"

namespace caffe {

namespace {

/// Tiles of 64 x 64 results that a GPU of today computes at once, about.
constexpr int64_t kTiles = 128;

template <typename Dtype>
struct Arithmetic;

template <>
struct Arithmetic<float> {
  static constexpr cudaDataType_t kType = CUDA_R_32F;
  static cublasComputeType_t Of(const bool tf32) { return tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F; }
};

template <>
struct Arithmetic<double> {
  static constexpr cudaDataType_t kType = CUDA_R_64F;
  static cublasComputeType_t Of(bool) { return CUBLAS_COMPUTE_64F; }
};

/// A factor of a product: rows x columns in memory, row by row; transposed in the product or not.
template <typename Dtype>
struct Factor {
  const Dtype* values;
  int columns;
  int64_t step;  // from one image's to the next; 0: the same for all
  bool transposed;
};

/// result[n] = a[n] b[n], rows x columns with `inner` in between, for each image. cuBLAS stores by columns, so that it
/// computes the transposed product.
template <typename Dtype>
void Products(const int num, const int rows, const int columns, const int inner, const Factor<Dtype>& a,
              const Factor<Dtype>& b, const bool tf32, Dtype* result) {
  const Dtype one = 1, zero = 0;
  const auto op = [](const Factor<Dtype>& factor) { return factor.transposed ? CUBLAS_OP_T : CUBLAS_OP_N; };
  const cudaDataType_t type = Arithmetic<Dtype>::kType;
  CUBLAS_CHECK(cublasGemmStridedBatchedEx(Caffe::cublas_handle(), op(b), op(a), columns, rows, inner, &one, b.values,
                                          type, b.columns, b.step, a.values, type, a.columns, a.step, &zero, result,
                                          type, columns, static_cast<int64_t>(rows) * columns, num,
                                          Arithmetic<Dtype>::Of(tf32), CUBLAS_GEMM_DEFAULT));
}

template <typename Dtype>
struct AddBias {
  const Dtype* bias;
  Dtype* y;
  __device__ void operator()(const unsigned c, const unsigned i) const { y[i] += __ldg(bias + c); }
};

template <typename Dtype>
struct SumOfDiff {
  const Dtype* dy;
  __device__ void operator()(int, const int i, Dtype* sums) const { sums[0] += __ldg(dy + i); }
};

template <typename Dtype>
struct AddTotal {
  Dtype* to;
  __device__ void operator()(const int c, const double* totals) const { to[c] = static_cast<Dtype>(to[c] + totals[0]); }
};

template <typename Dtype>
struct AddImages {
  int num;
  int64_t step;
  const Dtype* parts;
  Dtype* to;
  __device__ void operator()(unsigned, const unsigned i) const {
    Dtype sum = 0;
    for (int n = 0; n < num; ++n) { sum += parts[n * step + i]; }
    to[i] += sum;
  }
};

int64_t Tiles(const int count) { return (count + 63) / 64; }

}  // namespace

template <typename Dtype>
void PointwiseForwardGpu(const PointwiseShape& s, const Dtype* x, const Dtype* w, const Dtype* bias, const bool tf32,
                         Dtype* y) {
  const int64_t in = static_cast<int64_t>(s.in) * s.places;
  Products<Dtype>(s.num, s.out, s.places, s.in, {w, s.in, 0, false}, {x, s.places, in, false}, tf32, y);
  if (bias != nullptr) { EachOfChannel(s.num * s.out * s.places, s.out, s.places, AddBias<Dtype>{bias, y}); }
}

template <typename Dtype>
void PointwiseDataGpu(const PointwiseShape& s, const Dtype* dy, const Dtype* w, const bool tf32, Dtype* dx) {
  const int64_t out = static_cast<int64_t>(s.out) * s.places;
  Products<Dtype>(s.num, s.in, s.places, s.out, {w, s.in, 0, true}, {dy, s.places, out, false}, tf32, dx);
}

template <typename Dtype>
size_t PointwiseWeightsRoom(const PointwiseShape& s) {
  return static_cast<size_t>(s.num) * s.out * s.in * sizeof(Dtype);
}

template <typename Dtype>
size_t PointwiseBiasRoom(const PointwiseShape& s) {
  return static_cast<size_t>(s.out) * ChannelShares(s.num, s.out, s.places) * sizeof(Dtype);
}

bool PointwiseWeightsFill(const PointwiseShape& s) {
  return s.num * Tiles(s.out) * Tiles(s.in) >= kTiles || s.places <= 1024;
}

template <typename Dtype>
void PointwiseWeightsGpu(const PointwiseShape& s, const Dtype* dy, const Dtype* x, const bool tf32, Dtype* room,
                         Dtype* dw) {
  const int64_t in = static_cast<int64_t>(s.in) * s.places, out = static_cast<int64_t>(s.out) * s.places;
  Products<Dtype>(s.num, s.out, s.in, s.places, {dy, s.places, out, false}, {x, s.places, in, true}, tf32, room);
  const int count = s.out * s.in;
  EachOfChannel(count, 1, count, AddImages<Dtype>{s.num, count, room, dw});
}

template <typename Dtype>
void PointwiseBiasGpu(const PointwiseShape& s, const Dtype* dy, Dtype* room, Dtype* dbias) {
  SumChannels<Dtype, 1>(s.num, s.out, s.places, SumOfDiff<Dtype>{dy}, AddTotal<Dtype>{dbias}, room);
}

#define INSTANTIATE(Dtype)                                                                                          \
  template void PointwiseForwardGpu(const PointwiseShape&, const Dtype*, const Dtype*, const Dtype*, bool, Dtype*); \
  template void PointwiseDataGpu(const PointwiseShape&, const Dtype*, const Dtype*, bool, Dtype*);                  \
  template size_t PointwiseWeightsRoom<Dtype>(const PointwiseShape&);                                               \
  template size_t PointwiseBiasRoom<Dtype>(const PointwiseShape&);                                                  \
  template void PointwiseWeightsGpu(const PointwiseShape&, const Dtype*, const Dtype*, bool, Dtype*, Dtype*);       \
  template void PointwiseBiasGpu(const PointwiseShape&, const Dtype*, Dtype*, Dtype*)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace caffe
