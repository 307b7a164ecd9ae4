// Depthwise convolution on the CPU: the gradients of weights and bias.
//
// A plane is processed in bands of rows, as in depthwise.cpp. Each position of the kernel has a vector of sums; square
// kernels of 3 to 6 with stride 1 or 2 are unrolled, with the sums in registers.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "caffe/common.hpp"
#include "caffe/util/band.hpp"
#include "caffe/util/depthwise.hpp"
#include "caffe/util/depthwise_blocks.hpp"
#include "caffe/util/parallel.hpp"
#include "caffe/util/simd.hpp"

namespace caffe {

namespace {

/// sums[i, j] += the sum over the outputs of diff times the input that kernel position (i, j) reads for it; for rows
/// FirstRow to EndRow - 1 of the kernel, so that the sums fit the registers.
template <typename T, int Lanes, int K, int S, int FirstRow, int EndRow>
void UnrolledSums(const T* band, const int length, const T* diff, const int diff_length, const int rows, double* sums) {
  typedef SimdT<T, Lanes> V;
  V sum[EndRow - FirstRow][K] = {};
  for (int y = 0; y < rows; ++y) {
    const T* from = band + static_cast<size_t>(y) * S * S * length;
    const T* line = diff + static_cast<size_t>(y) * diff_length;
    for (int x = 0; x < diff_length; x += Lanes) {
      const V d = SimdLoad<T, Lanes>(line + x);
#pragma GCC unroll 8
      for (int i = FirstRow; i < EndRow; ++i) {
#pragma GCC unroll 8
        for (int j = 0; j < K; ++j) {
          sum[i - FirstRow][j] += d * SimdLoad<T, Lanes>(from + (i * S + j % S) * length + j / S + x);
        }
      }
    }
  }
  for (int i = FirstRow; i < EndRow; ++i) {
    for (int j = 0; j < K; ++j) { sums[i * K + j] += SimdSum<T, Lanes>(sum[i - FirstRow][j]); }
  }
}

template <typename T, int Lanes, int K, int S>
void AllSums(const T* band, const int length, const T* diff, const int diff_length, const int rows, double* sums) {
  if (K <= 4) {
    UnrolledSums<T, Lanes, K, S, 0, K>(band, length, diff, diff_length, rows, sums);
  } else {
    UnrolledSums<T, Lanes, K, S, 0, 3>(band, length, diff, diff_length, rows, sums);
    UnrolledSums<T, Lanes, K, S, 3, K>(band, length, diff, diff_length, rows, sums);
  }
}

template <typename T, int Lanes>
T Dot(const T* a, const T* b, const int count) {
  SimdT<T, Lanes> sum = {};
  for (int x = 0; x < count; x += Lanes) { sum += SimdLoad<T, Lanes>(a + x) * SimdLoad<T, Lanes>(b + x); }
  return SimdSum<T, Lanes>(sum);
}

template <typename T, int Lanes>
void BlockSums(const DepthwiseShape& s, const T* band, const int length, const T* diff, const int diff_length,
               const int rows, double* sums) {
  if (Unrolls(s)) {
    switch (s.kernel_h * 10 + s.stride_h) {
      case 31: return AllSums<T, Lanes, 3, 1>(band, length, diff, diff_length, rows, sums);
      case 32: return AllSums<T, Lanes, 3, 2>(band, length, diff, diff_length, rows, sums);
      case 41: return AllSums<T, Lanes, 4, 1>(band, length, diff, diff_length, rows, sums);
      case 42: return AllSums<T, Lanes, 4, 2>(band, length, diff, diff_length, rows, sums);
      case 51: return AllSums<T, Lanes, 5, 1>(band, length, diff, diff_length, rows, sums);
      case 52: return AllSums<T, Lanes, 5, 2>(band, length, diff, diff_length, rows, sums);
      case 61: return AllSums<T, Lanes, 6, 1>(band, length, diff, diff_length, rows, sums);
      case 62: return AllSums<T, Lanes, 6, 2>(band, length, diff, diff_length, rows, sums);
    }
  }
  const int row_length = s.stride_w * length;
  for (int i = 0; i < s.kernel_h; ++i) {
    for (int j = 0; j < s.kernel_w; ++j) {
      const int x = j * s.dilation_w;
      const T* from = band + i * s.dilation_h * row_length + x % s.stride_w * length + x / s.stride_w;
      for (int y = 0; y < rows; ++y) {
        sums[i * s.kernel_w + j] += Dot<T, Lanes>(from + static_cast<size_t>(y) * s.stride_h * row_length,
                                                  diff + static_cast<size_t>(y) * diff_length, diff_length);
      }
    }
  }
}

/// sums += what one plane adds to the gradient of its kernel.
template <typename T, int Lanes>
void WeightSums(const DepthwiseShape& s, const T* input, const int64_t after, const T* output_diff,
                const int64_t diff_after, double* sums) {
  // Past the end of a row diff is filled with zeros, so that whole vectors can be added.
  const int diff_length = DivideUp(s.out_width, Lanes) * Lanes;
  const Band shape = {s.height, s.width, s.pad_w, s.stride_w,
                      diff_length + (s.kernel_w - 1) * s.dilation_w / s.stride_w + 1};
  const Band diff_shape = {s.out_height, s.out_width, 0, 1, diff_length};
  const int row_length = shape.stride * shape.length;
  const int block = RowsOfBlock<T>(s, row_length);
  const int extent = (s.kernel_h - 1) * s.dilation_h + 1;
  T* band = DepthwiseRoom<T>(0, shape.template Size<T>((block - 1) * s.stride_h + extent));
  for (int y = 0; y < s.out_height; y += block) {
    const int rows = std::min(block, s.out_height - y);
    shape.Fill(input, after, y * s.stride_h - s.pad_h, (rows - 1) * s.stride_h + extent, band);
    const T* diff = output_diff + static_cast<size_t>(y) * s.out_width;
    if (diff_length != s.out_width) {
      T* padded = DepthwiseRoom<T>(1, diff_shape.template Size<T>(block));
      diff_shape.Fill(output_diff, diff_after, y, rows, padded);
      diff = padded;
    }
    BlockSums<T, Lanes>(s, band, shape.length, diff, diff_length, rows, sums);
  }
}

template <typename T>
void WeightSums(const DepthwiseShape& s, const T* input, const int64_t after, const T* output_diff,
                const int64_t diff_after, double* sums) {
  constexpr int most = SimdLanes<T>();
  const int lanes = LanesFor<T>(s.out_width);
  if (lanes == most) {
    WeightSums<T, most>(s, input, after, output_diff, diff_after, sums);
  } else if (lanes == AtLeast2(most / 2)) {
    WeightSums<T, AtLeast2(most / 2)>(s, input, after, output_diff, diff_after, sums);
  } else {
    WeightSums<T, AtLeast2(most / 4)>(s, input, after, output_diff, diff_after, sums);
  }
}

}  // namespace

template <typename Dtype>
void DepthwiseBackwardWeights(const DepthwiseShape& shape, const int num, const int channels, const Dtype* input,
                              const Dtype* output_diff, Dtype* weight_diff, Dtype* bias_diff) {
  const int64_t in_plane = static_cast<int64_t>(shape.height) * shape.width;
  const int64_t out_plane = static_cast<int64_t>(shape.out_height) * shape.out_width;
  const int64_t planes = static_cast<int64_t>(num) * channels;
  const int taps = shape.kernel_h * shape.kernel_w;
  const int grain = std::max(1, PlanesAtATime(shape, num * channels) / std::max(1, num));
  ParallelFor(channels, grain, [&](const int begin, const int end) {
    std::vector<double> sums(taps);
    for (int c = begin; c < end; ++c) {
      std::fill(sums.begin(), sums.end(), 0.);
      double bias_sum = 0;
      for (int n = 0; n < num; ++n) {
        const int64_t plane = static_cast<int64_t>(n) * channels + c;
        if (weight_diff != nullptr) {
          WeightSums(shape, input + plane * in_plane, (planes - 1 - plane) * in_plane, output_diff + plane * out_plane,
                     (planes - 1 - plane) * out_plane, sums.data());
        }
        if (bias_diff != nullptr) {
          bias_sum += SimdTotal(output_diff + plane * out_plane, static_cast<int>(out_plane));
        }
      }
      if (weight_diff != nullptr) {
        for (int t = 0; t < taps; ++t) { weight_diff[c * taps + t] += static_cast<Dtype>(sums[t]); }
      }
      if (bias_diff != nullptr) { bias_diff[c] += static_cast<Dtype>(bias_sum); }
    }
  });
}

#define INSTANTIATE_DEPTHWISE_WEIGHTS(Dtype)                                                                         \
  template void DepthwiseBackwardWeights<Dtype>(const DepthwiseShape&, int, int, const Dtype*, const Dtype*, Dtype*, \
                                                Dtype*)
INSTANTIATE_DEPTHWISE_WEIGHTS(float);
INSTANTIATE_DEPTHWISE_WEIGHTS(double);

}  // namespace caffe
