// Depthwise convolution on the CPU: forward, and the gradient of the input; depthwise_weights.cpp has the others.
//
// A plane is processed in bands of rows (band.hpp) that stay in the first-level cache. A band includes the padding, so
// there are no edge cases: a vector of outputs is the sum over the kernel of a weight times one unaligned load. The
// last vector of a row overlaps the one before it. Square kernels of 3 to 6 with stride 1 or 2 are unrolled and keep
// several output rows in registers, so that one load serves all of them.
#include "caffe/util/depthwise.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "caffe/common.hpp"
#include "caffe/util/band.hpp"
#include "caffe/util/depthwise_blocks.hpp"
#include "caffe/util/parallel.hpp"
#include "caffe/util/simd.hpp"

namespace caffe {

namespace {

/// Rows of outputs that are kept in registers.
constexpr int RegisterRows(const int kernel, const int stride) { return stride == 2 ? 2 : (kernel <= 4 ? 4 : 2); }

/// `Rows` rows of outputs for a K x K kernel and stride S, Lanes outputs at a time.
template <typename T, int Lanes, int K, int S, int Rows>
inline __attribute__((always_inline)) void UnrolledRows(const T* band, const int length, const T* weights, const T bias,
                                                        const int count, T* out) {
  typedef SimdT<T, Lanes> V;
  for (int x = 0; x < count; x += Lanes) {
    if (x + Lanes > count) { x = std::max(count - Lanes, 0); }
    V sum[Rows];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) { sum[r] = SimdSet<T, Lanes>(bias); }
#pragma GCC unroll 16
    for (int i = 0; i < (Rows - 1) * S + K; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < K; ++j) {
        const V value = SimdLoad<T, Lanes>(band + (i * S + j % S) * length + j / S + x);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
          const int ky = i - r * S;
          if (ky >= 0 && ky < K) { sum[r] += weights[ky * K + j] * value; }
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      if (count >= Lanes) {
        SimdStore<T, Lanes>(sum[r], out + r * count + x);
      } else {
        SimdStoreSome<T, Lanes>(sum[r], out + r * count + x, count);
      }
    }
  }
}

/// A block of rows of outputs.
template <typename T, int Lanes, int K, int S>
void UnrolledBlock(const T* band, const int length, const T* weights, const T bias, const int count, const int rows,
                   T* out) {
  constexpr int step = RegisterRows(K, S);
  T kernel[K * K];  // a copy, so that the compiler knows that the outputs do not overlap it
  std::copy(weights, weights + K * K, kernel);
  const size_t row_length = static_cast<size_t>(S) * S * length;
  if (rows < step) {
    for (int r = 0; r < rows; ++r) {
      UnrolledRows<T, Lanes, K, S, 1>(band + r * row_length, length, kernel, bias, count,
                                      out + static_cast<size_t>(r) * count);
    }
    return;
  }
  for (int r = 0; r < rows; r += step) {
    r = std::min(r, rows - step);  // the last ones overlap those before
    UnrolledRows<T, Lanes, K, S, step>(band + r * row_length, length, kernel, bias, count,
                                       out + static_cast<size_t>(r) * count);
  }
}

/// out[x] = start + the sum over the taps of weight times row[x], count of them.
template <typename T, int Lanes>
void TappedRow(const T* const* rows, const T* weights, const int taps, const T start, const int count, T* out) {
  typedef SimdT<T, Lanes> V;
  int x = 0;
  for (; x + 4 * Lanes <= count; x += 4 * Lanes) {
    V sum[4];
    for (int v = 0; v < 4; ++v) { sum[v] = SimdSet<T, Lanes>(start); }
    for (int t = 0; t < taps; ++t) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) { sum[v] += weights[t] * SimdLoad<T, Lanes>(rows[t] + x + v * Lanes); }
    }
    for (int v = 0; v < 4; ++v) { SimdStore<T, Lanes>(sum[v], out + x + v * Lanes); }
  }
  for (; x < count; x += Lanes) {
    if (x + Lanes > count) { x = std::max(count - Lanes, 0); }
    V sum = SimdSet<T, Lanes>(start);
    for (int t = 0; t < taps; ++t) { sum += weights[t] * SimdLoad<T, Lanes>(rows[t] + x); }
    if (count >= Lanes) {
      SimdStore<T, Lanes>(sum, out + x);
    } else {
      SimdStoreSome<T, Lanes>(sum, out + x, count);
    }
  }
}

/// The functions that depend on the shape, chosen once a call.
template <typename T>
struct Steps {
  // A block of rows; null if there is no unrolled code for the shape.
  void (*rows)(const T*, int, const T*, T, int, int, T*);
  void (*tapped)(const T* const*, const T*, int, T, int, T*);
};

template <typename T, int Lanes, int K, int S>
void UnrolledSteps(Steps<T>* steps) {
  steps->rows = UnrolledBlock<T, Lanes, K, S>;
}

template <typename T, int Lanes>
Steps<T> StepsOf(const DepthwiseShape& s) {
  Steps<T> steps = {nullptr, TappedRow<T, Lanes>};
  if (Unrolls(s)) {
    switch (s.kernel_h * 10 + s.stride_h) {
      case 31: UnrolledSteps<T, Lanes, 3, 1>(&steps); break;
      case 32: UnrolledSteps<T, Lanes, 3, 2>(&steps); break;
      case 41: UnrolledSteps<T, Lanes, 4, 1>(&steps); break;
      case 42: UnrolledSteps<T, Lanes, 4, 2>(&steps); break;
      case 51: UnrolledSteps<T, Lanes, 5, 1>(&steps); break;
      case 52: UnrolledSteps<T, Lanes, 5, 2>(&steps); break;
      case 61: UnrolledSteps<T, Lanes, 6, 1>(&steps); break;
      case 62: UnrolledSteps<T, Lanes, 6, 2>(&steps); break;
    }
  }
  return steps;
}

template <typename T>
Steps<T> StepsFor(const DepthwiseShape& s, const int count) {
  constexpr int most = SimdLanes<T>();
  const int lanes = LanesFor<T>(count);
  if (lanes == most) { return StepsOf<T, most>(s); }
  if (lanes == AtLeast2(most / 2)) { return StepsOf<T, AtLeast2(most / 2)>(s); }
  return StepsOf<T, AtLeast2(most / 4)>(s);
}

template <typename T>
void ForwardPlane(const DepthwiseShape& s, const Steps<T>& steps, const T* input, const int64_t after, const T* weights,
                  const T bias, T* output) {
  const Band shape = {s.height, s.width, s.pad_w, s.stride_w,
                      std::max(s.out_width, SimdLanes<T>()) + (s.kernel_w - 1) * s.dilation_w / s.stride_w + 1};
  const int row_length = shape.stride * shape.length;
  const int block = RowsOfBlock<T>(s, row_length);
  const int extent = (s.kernel_h - 1) * s.dilation_h + 1;
  T* band = DepthwiseRoom<T>(0, shape.template Size<T>((block - 1) * s.stride_h + extent));
  std::vector<const T*> taps(steps.rows == nullptr ? s.kernel_h * s.kernel_w : 0);
  for (int y = 0; y < s.out_height; y += block) {
    const int rows = std::min(block, s.out_height - y);
    shape.Fill(input, after, y * s.stride_h - s.pad_h, (rows - 1) * s.stride_h + extent, band);
    T* out = output + static_cast<size_t>(y) * s.out_width;
    if (steps.rows != nullptr) {
      steps.rows(band, shape.length, weights, bias, s.out_width, rows, out);
      continue;
    }
    for (int r = 0; r < rows; ++r) {
      const T* from = band + static_cast<size_t>(r) * s.stride_h * row_length;
      T* to = out + static_cast<size_t>(r) * s.out_width;
      for (int i = 0; i < s.kernel_h; ++i) {
        for (int j = 0; j < s.kernel_w; ++j) {
          const int x = j * s.dilation_w;
          taps[i * s.kernel_w + j] =
              from + i * s.dilation_h * row_length + x % s.stride_w * shape.length + x / s.stride_w;
        }
      }
      steps.tapped(taps.data(), weights, static_cast<int>(taps.size()), bias, s.out_width, to);
    }
  }
}

/// Gradient of a plane for any stride: each phase of the input's columns is reached by only some columns of the kernel.
template <typename T>
void BackwardPlane(const DepthwiseShape& s, const Steps<T>& steps, const T* output_diff, const int64_t after,
                   const T* weights, T* input_diff) {
  const int phases = s.stride_w;
  const int phase_length = DivideUp(s.width, phases);
  // Kernel column j connects input column q phases + p with output column q + offset, if offset is a whole number.
  const auto meets = [&](const int p, const int j, int* offset) {
    const int sum = p + s.pad_w - j * s.dilation_w;
    *offset = DivideDown(sum, phases);
    return *offset * phases == sum;
  };
  const int least = DivideDown(s.pad_w - (s.kernel_w - 1) * s.dilation_w, phases);
  const int most = DivideUp(phases - 1 + s.pad_w, phases);
  const Band shape = {s.out_height, s.out_width, std::max(0, -least), 1,
                      std::max(0, -least) + std::max(phase_length, SimdLanes<T>()) + std::max(0, most)};
  const int block = Clamp(kDepthwiseBandBytes / static_cast<int>(sizeof(T)) / shape.length * s.stride_h, 1, s.height);
  const int taps = s.kernel_h * s.kernel_w;
  std::vector<const T*> rows(taps);
  std::vector<T> factors(taps);
  T* phase = DepthwiseRoom<T>(1, static_cast<size_t>(phases) * phase_length);
  for (int y = 0; y < s.height; y += block) {
    const int end = std::min(y + block, s.height);
    const int first = DivideUp(y + s.pad_h - (s.kernel_h - 1) * s.dilation_h, s.stride_h);
    const int last = DivideDown(end - 1 + s.pad_h, s.stride_h);
    const int band_rows = std::max(0, last - first + 1);
    T* band = DepthwiseRoom<T>(0, shape.template Size<T>(band_rows + 1));
    shape.Fill(output_diff, after, first, band_rows, band);
    for (int iy = y; iy < end; ++iy) {
      for (int p = 0; p < phases; ++p) {
        int met = 0;
        for (int i = 0; i < s.kernel_h; ++i) {
          const int sum = iy + s.pad_h - i * s.dilation_h;
          const int oy = DivideDown(sum, s.stride_h);
          if (oy * s.stride_h != sum || oy < 0 || oy >= s.out_height) { continue; }
          for (int j = 0; j < s.kernel_w; ++j) {
            int offset;
            if (!meets(p, j, &offset)) { continue; }
            rows[met] = band + static_cast<size_t>(oy - first) * shape.length + shape.pad + offset;
            factors[met++] = weights[i * s.kernel_w + j];
          }
        }
        steps.tapped(rows.data(), factors.data(), met, T(0), phase_length, phase + p * phase_length);
      }
      T* to = input_diff + static_cast<size_t>(iy) * s.width;
      if (phases == 2) {
        const T* odd = phase + phase_length;
        const int pairs = s.width / 2;
        for (int q = 0; q < pairs; ++q) {
          to[2 * q] = phase[q];
          to[2 * q + 1] = odd[q];
        }
        if (s.width % 2 == 1) { to[s.width - 1] = phase[pairs]; }
      } else {
        for (int x = 0; x < s.width; ++x) { to[x] = phase[x % phases * phase_length + x / phases]; }
      }
    }
  }
}

}  // namespace

template <typename Dtype>
void DepthwiseForward(const DepthwiseShape& shape, const int num, const int channels, const Dtype* input,
                      const Dtype* weights, const Dtype* bias, Dtype* output) {
  const Steps<Dtype> steps = StepsFor<Dtype>(shape, shape.out_width);
  const int64_t in_plane = static_cast<int64_t>(shape.height) * shape.width;
  const int64_t out_plane = static_cast<int64_t>(shape.out_height) * shape.out_width;
  const int64_t planes = static_cast<int64_t>(num) * channels;
  const int taps = shape.kernel_h * shape.kernel_w;
  ParallelFor(num * channels, PlanesAtATime(shape, num * channels), [&](const int begin, const int end) {
    for (int i = begin; i < end; ++i) {
      const int c = i % channels;
      ForwardPlane(shape, steps, input + i * in_plane, (planes - 1 - i) * in_plane, weights + c * taps,
                   bias == nullptr ? Dtype(0) : bias[c], output + i * out_plane);
    }
  });
}

template <typename Dtype>
void DepthwiseBackwardData(const DepthwiseShape& shape, const int num, const int channels, const Dtype* output_diff,
                           const Dtype* weights, Dtype* input_diff) {
  const int64_t in_plane = static_cast<int64_t>(shape.height) * shape.width;
  const int64_t out_plane = static_cast<int64_t>(shape.out_height) * shape.out_width;
  const int64_t planes = static_cast<int64_t>(num) * channels;
  const int taps = shape.kernel_h * shape.kernel_w;
  const int grain = PlanesAtATime(shape, num * channels);
  if (shape.stride_h > 1 || shape.stride_w > 1) {
    const Steps<Dtype> steps = StepsFor<Dtype>(shape, DivideUp(shape.width, shape.stride_w));
    ParallelFor(num * channels, grain, [&](const int begin, const int end) {
      for (int i = begin; i < end; ++i) {
        BackwardPlane(shape, steps, output_diff + i * out_plane, (planes - 1 - i) * out_plane,
                      weights + i % channels * taps, input_diff + i * in_plane);
      }
    });
    return;
  }
  // With stride 1 it is a convolution of the output's gradient with the kernel rotated by 180 degrees.
  DepthwiseShape rotated = shape;
  rotated.height = shape.out_height;
  rotated.width = shape.out_width;
  rotated.out_height = shape.height;
  rotated.out_width = shape.width;
  rotated.pad_h = (shape.kernel_h - 1) * shape.dilation_h - shape.pad_h;
  rotated.pad_w = (shape.kernel_w - 1) * shape.dilation_w - shape.pad_w;
  const Steps<Dtype> steps = StepsFor<Dtype>(rotated, rotated.out_width);
  ParallelFor(num * channels, grain, [&](const int begin, const int end) {
    std::vector<Dtype> kernel(taps);
    for (int i = begin; i < end; ++i) {
      const Dtype* plain = weights + i % channels * taps;
      std::reverse_copy(plain, plain + taps, kernel.begin());
      ForwardPlane(rotated, steps, output_diff + i * out_plane, (planes - 1 - i) * out_plane, kernel.data(), Dtype(0),
                   input_diff + i * in_plane);
    }
  });
}

#define INSTANTIATE_DEPTHWISE(Dtype)                                                                               \
  template void DepthwiseForward<Dtype>(const DepthwiseShape&, int, int, const Dtype*, const Dtype*, const Dtype*, \
                                        Dtype*);                                                                   \
  template void DepthwiseBackwardData<Dtype>(const DepthwiseShape&, int, int, const Dtype*, const Dtype*, Dtype*)
INSTANTIATE_DEPTHWISE(float);
INSTANTIATE_DEPTHWISE(double);

}  // namespace caffe
