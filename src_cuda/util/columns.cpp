#include "caffe/util/columns.hpp"

#include <algorithm>
#include <vector>

#include "caffe/common.hpp"
#include "caffe/util/band.hpp"
#include "caffe/util/cpu_gemm.hpp"
#include "caffe/util/parallel.hpp"
#include "caffe/util/simd.hpp"

namespace caffe {

namespace {

/// One axis of a plane.
struct Axis {
  int in, out, kernel, stride, before, dilation;

  /// Input position that kernel position k reads for output position 0.
  int Offset(const int k) const { return k * dilation - before; }
  /// First output position for which kernel position k reads an input position >= edge.
  int First(const int k, const int edge) const {
    const int missing = edge - Offset(k);
    return missing <= 0 ? 0 : std::min((missing + stride - 1) / stride, out);
  }
};

Axis AxisY(const PlaneShape& s) { return {s.height, s.out_height, s.kernel_h, s.stride_h, s.pad_h, s.dilation_h}; }
Axis AxisX(const PlaneShape& s) { return {s.width, s.out_width, s.kernel_w, s.stride_w, s.pad_w, s.dilation_w}; }

template <typename T>
void CopyRow(const T* from, const int stride, const int count, T* to) {
  if (stride == 1) {
    std::copy(from, from + count, to);
  } else if (stride == 2) {  // a constant, so that the compiler vectorises it
    for (int i = 0; i < count; ++i) { to[i] = from[2 * i]; }
  } else {
    for (int i = 0; i < count; ++i) { to[i] = from[stride * i]; }
  }
}

template <typename T>
void AddRow(const T* from, const int stride, const int count, T* to) {
  if (stride == 1) {
    for (int i = 0; i < count; ++i) { to[i] += from[i]; }
  } else {
    for (int i = 0; i < count; ++i) { to[stride * i] += from[i]; }
  }
}

/// Values that one thread moves at a time, at least: some microseconds of work.
constexpr int kGrain = 1 << 14;

/// Bytes of input rows that DirectConvForward holds at a time: most of them stay in the first-level cache.
constexpr int kBandBytes = 48 * 1024;

/// The band of one channel, wide enough to compute rows of outputs in whole vectors.
template <typename T>
Band BandOf(const PlaneShape& s) {
  const int padded = DivideUp(s.out_width, SimdLanes<T>()) * SimdLanes<T>();
  return {s.height, s.width, s.pad_w, s.stride_w, padded + (s.kernel_w - 1) * s.dilation_w / s.stride_w + 1};
}

/// Rows of input that `rows` rows of outputs need.
int NeededRows(const PlaneShape& s, const int rows) {
  return (rows - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1;
}

}  // namespace

template <typename Dtype>
void ToColumns(const PlaneShape& shape, const int channels, const Dtype* image, Dtype* columns) {
  const Axis y = AxisY(shape), x = AxisX(shape);
  const int taps = y.kernel * x.kernel;
  const auto rows = [=](const int begin, const int end) {
    for (int row = begin; row < end; ++row) {
      const Dtype* plane = image + static_cast<size_t>(row / taps) * y.in * x.in;
      const int ky = row % taps / x.kernel;
      const int kx = row % x.kernel;
      const int x_begin = x.First(kx, 0), x_end = x.First(kx, x.in);
      const int y_begin = y.First(ky, 0), y_end = y.First(ky, y.in);
      Dtype* to = columns + static_cast<size_t>(row) * y.out * x.out;
      std::fill(to, to + y_begin * x.out, Dtype(0));
      for (int oy = y_begin; oy < y_end; ++oy) {
        Dtype* line = to + oy * x.out;
        const Dtype* from = plane + (oy * y.stride + y.Offset(ky)) * x.in;
        std::fill(line, line + x_begin, Dtype(0));
        CopyRow(from + x_begin * x.stride + x.Offset(kx), x.stride, x_end - x_begin, line + x_begin);
        std::fill(line + x_end, line + x.out, Dtype(0));
      }
      std::fill(to + y_end * x.out, to + y.out * x.out, Dtype(0));
    }
  };
  ParallelFor(channels * taps, ParallelGrain(channels * taps, kGrain / (y.out * x.out)), rows);
}

template <typename Dtype>
void FromColumns(const PlaneShape& shape, const int channels, const Dtype* columns, Dtype* image) {
  const Axis y = AxisY(shape), x = AxisX(shape);
  const auto planes = [=](const int begin, const int end) {
    for (int c = begin; c < end; ++c) {
      Dtype* plane = image + static_cast<size_t>(c) * y.in * x.in;
      std::fill(plane, plane + y.in * x.in, Dtype(0));
      for (int ky = 0; ky < y.kernel; ++ky) {
        for (int kx = 0; kx < x.kernel; ++kx) {
          const int row = (c * y.kernel + ky) * x.kernel + kx;
          const Dtype* from = columns + static_cast<size_t>(row) * y.out * x.out;
          const int x_begin = x.First(kx, 0), x_end = x.First(kx, x.in);
          const int y_end = y.First(ky, y.in);
          for (int oy = y.First(ky, 0); oy < y_end; ++oy) {
            AddRow(from + oy * x.out + x_begin, x.stride, x_end - x_begin,
                   plane + (oy * y.stride + y.Offset(ky)) * x.in + x_begin * x.stride + x.Offset(kx));
          }
        }
      }
    }
  };
  const int taps = y.kernel * x.kernel;
  ParallelFor(channels, ParallelGrain(channels, kGrain / (taps * y.out * x.out)), planes);
}

template <typename Dtype>
bool DirectConvWins(const PlaneShape& shape, const int channels) {
  const int padded = DivideUp(shape.out_width, SimdLanes<Dtype>()) * SimdLanes<Dtype>();
  const double bytes = static_cast<double>(sizeof(Dtype)) * channels * NeededRows(shape, 1) * shape.stride_w *
                       BandOf<Dtype>(shape).length;
  return bytes <= kBandBytes && 8 * shape.out_width >= 7 * padded;
}

template <typename Dtype>
void DirectConvForward(const PlaneShape& shape, const int channels, const int outputs, const Dtype* image,
                       const Dtype* weights, const Dtype* bias, Dtype* output) {
  const PlaneShape s = shape;
  const Band band = BandOf<Dtype>(s);
  const int row_length = band.stride * band.length;
  const int most_rows = kBandBytes / static_cast<int>(sizeof(Dtype)) / channels / row_length;
  const int block = Clamp((most_rows - NeededRows(s, 1)) / s.stride_h + 1, 1, s.out_height);
  const int in_plane = s.height * s.width;
  const size_t out_plane = static_cast<size_t>(s.out_height) * s.out_width;
  const int K = channels * s.kernel_h * s.kernel_w;
  const auto rows = [&](const int begin, const int end) {
    static thread_local std::vector<Dtype> held;
    static thread_local std::vector<int> starts;
    const int needed = NeededRows(s, end - begin);
    held.resize(static_cast<size_t>(channels) * needed * row_length + band.template Size<Dtype>(0));
    starts.clear();
    for (int c = 0; c < channels; ++c) {
      band.Fill(image + static_cast<size_t>(c) * in_plane, static_cast<int64_t>(channels - 1 - c) * in_plane,
                begin * s.stride_h - s.pad_h, needed, held.data() + static_cast<size_t>(c) * needed * row_length);
      for (int i = 0; i < s.kernel_h; ++i) {
        for (int j = 0; j < s.kernel_w; ++j) {
          const int x = j * s.dilation_w;
          starts.push_back((c * needed + i * s.dilation_h) * row_length + x % s.stride_w * band.length +
                           x / s.stride_w);
        }
      }
    }
    for (int y = begin; y < end; ++y) {
      CpuGemmPlaced(outputs, s.out_width, K, weights, held.data() + (y - begin) * s.stride_h * row_length,
                    starts.data(), bias, out_plane, output + static_cast<size_t>(y) * s.out_width);
    }
  };
  // A block of output rows at a time; the last one may be shorter.
  ParallelFor(DivideUp(s.out_height, block), 1, [&](const int begin, const int end) {
    for (int b = begin; b < end; ++b) { rows(b * block, std::min((b + 1) * block, s.out_height)); }
  });
}

#define INSTANTIATE_COLUMNS(Dtype)                                                \
  template void ToColumns<Dtype>(const PlaneShape&, int, const Dtype*, Dtype*);   \
  template void FromColumns<Dtype>(const PlaneShape&, int, const Dtype*, Dtype*); \
  template bool DirectConvWins<Dtype>(const PlaneShape&, int);                    \
  template void DirectConvForward<Dtype>(const PlaneShape&, int, int, const Dtype*, const Dtype*, const Dtype*, Dtype*)
INSTANTIATE_COLUMNS(float);
INSTANTIATE_COLUMNS(double);

}  // namespace caffe
