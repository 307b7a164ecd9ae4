#include "caffe/util/conv_rows.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "caffe/util/band.hpp"
#include "caffe/util/columns.hpp"
#include "caffe/util/cpu_gemm.hpp"
#include "caffe/util/depthwise.hpp"
#include "caffe/util/parallel.hpp"
#include "caffe/util/simd.hpp"
#include "caffe/util/stream_copy.hpp"

namespace caffe {

namespace {

/// Bytes of the first map that a thread holds at a time.
constexpr int kHeldBytes = 512 * 1024;
/// A first map of fewer bytes stays in the caches without this.
constexpr size_t kLeastBytes = 1024 * 1024;

template <typename T>
struct Stretches {
  const ConvOfRows<T>& first;
  const ConvOfRows<T>& depthwise;
  const ConvOfRows<T>& last;
  const T* input;
  T* first_output;
  T* depthwise_output;
  T* last_output;

  const PlaneShape& shape() const { return depthwise.shape; }
  int extent() const { return (shape().kernel_h - 1) * shape().dilation_h + 1; }
  int row_bytes() const { return static_cast<int>(sizeof(T)) * depthwise.channels * shape().width; }
  /// Rows of the depthwise output in a stretch.
  int rows() const {
    return Clamp((kHeldBytes / row_bytes() - extent()) / shape().stride_h + 1, 1, shape().out_height);
  }
  /// The first map's row after the last one that the depthwise rows before `row` need; all rows for the last of them.
  int EndFor(const int row) const {
    if (row == 0) { return 0; }
    const int end = (row - 1) * shape().stride_h - shape().pad_h + extent();
    return row == shape().out_height ? shape().height : Clamp(end, 0, shape().height);
  }
  int BeginFor(const int row) const { return Clamp(row * shape().stride_h - shape().pad_h, 0, shape().height); }

  /// Rows [begin, end) of the first map; to: the place of row `begin` of its first plane.
  void First(const int begin, const int end, const size_t plane, T* to) const {
    const PlaneShape& s = first.shape;
    if (first.kind == ConvOfRows<T>::kDirect) {
      DirectConvRows(s, first.channels, first.outputs, input, first.weights, first.bias, first.bounds, begin, end,
                     plane, to);
    } else {
      CpuGemmColumns(first.outputs, (end - begin) * s.width, first.channels, first.weights,
                     input + static_cast<size_t>(begin) * s.width, static_cast<size_t>(s.height) * s.width, first.bias,
                     first.bounds, plane, to);
    }
  }

  static void Store(const int planes, const T* from, const size_t from_plane, T* to, const size_t to_plane,
                    const size_t count) {
    for (int c = 0; c < planes; ++c) { StreamCopy(from + c * from_plane, to + c * to_plane, count * sizeof(T)); }
  }

  /// Stretches [begin, end), one after another: rows of the first map that two of them need are computed once.
  void Run(const int begin, const int end) const {
    static thread_local std::vector<T> first_room, depthwise_room;
    const PlaneShape& s = shape();
    const int step = rows(), channels = depthwise.channels;
    const size_t width = s.width, out_width = s.out_width;
    const size_t in_map = s.height * width, out_map = s.out_height * out_width;
    const int most = (step - 1) * s.stride_h + extent() + s.height - EndForMost();
    // Not a multiple of a page, so that the planes do not share the same few places of the first-level cache.
    const size_t in_plane = most * width + 2 * SimdLanes<T>(), out_plane = step * out_width + 2 * SimdLanes<T>();
    first_room.resize(channels * in_plane + 4 * SimdLanes<T>());
    depthwise_room.resize(channels * out_plane + 4 * SimdLanes<T>());
    T* held = first_room.data();
    T* made = depthwise_room.data();
    int held_begin = 0, held_end = 0;
    for (int stretch = begin; stretch < end; ++stretch) {
      const int row = stretch * step, row_end = std::min(row + step, s.out_height);
      const int from = BeginFor(row), to = std::max(from, EndFor(row_end));
      const int kept = stretch == begin ? 0 : std::max(0, held_end - from);
      if (kept > 0) {
        for (int c = 0; c < channels; ++c) {
          T* plane = held + c * in_plane;
          std::memmove(plane, plane + (from - held_begin) * width, kept * width * sizeof(T));
        }
      }
      if (from + kept < to) { First(from + kept, to, in_plane, held + kept * width); }
      held_begin = from;
      held_end = to;
      const int own = std::max(from, EndFor(row));
      Store(channels, held + (own - from) * width, in_plane, first_output + own * width, in_map, (to - own) * width);

      PlaneShape part = s;
      part.height = to - from;
      part.pad_h = from - (row * s.stride_h - s.pad_h);
      part.out_height = row_end - row;
      DepthwiseRows(part, channels, held, in_plane, depthwise.weights, depthwise.bias, depthwise.bounds, out_plane,
                    made);
      const size_t count = (row_end - row) * out_width;
      Store(channels, made, out_plane, depthwise_output + row * out_width, out_map, count);
      CpuGemmColumns(last.outputs, static_cast<int>(count), last.channels, last.weights, made, out_plane, last.bias,
                     last.bounds, out_map, last_output + row * out_width);
    }
    EndStreams();
  }

  /// What EndFor would be for the last row if the rows below it were not needed.
  int EndForMost() const {
    return Clamp((shape().out_height - 1) * shape().stride_h - shape().pad_h + extent(), 0, shape().height);
  }
};

}  // namespace

template <typename Dtype>
bool RowsWin(const ConvOfRows<Dtype>& first, const ConvOfRows<Dtype>& depthwise, const ConvOfRows<Dtype>& last) {
  typedef ConvOfRows<Dtype> Conv;
  const PlaneShape& s = depthwise.shape;
  const size_t bytes = sizeof(Dtype) * depthwise.channels * static_cast<size_t>(s.height) * s.width;
  return (first.kind == Conv::kPointwise || first.kind == Conv::kDirect) && depthwise.kind == Conv::kDepthwise &&
         last.kind == Conv::kPointwise && bytes >= kLeastBytes && s.stride_h <= s.kernel_h &&
         s.out_height >= 2 * ParallelThreads();
}

template <typename Dtype>
void ForwardInRows(const ConvOfRows<Dtype>& first, const ConvOfRows<Dtype>& depthwise, const ConvOfRows<Dtype>& last,
                   const Dtype* input, Dtype* first_output, Dtype* depthwise_output, Dtype* last_output) {
  const Stretches<Dtype> all = {first, depthwise, last, input, first_output, depthwise_output, last_output};
  const int count = DivideUp(depthwise.shape.out_height, all.rows());
  // Two ranges a thread: a long range computes few rows twice, and two even out a thread that is late.
  ParallelFor(count, DivideUp(count, 2 * ParallelThreads()),
              [&](const int begin, const int end) { all.Run(begin, end); });
}

#define INSTANTIATE_ROWS(Dtype)                                                                                    \
  template bool RowsWin<Dtype>(const ConvOfRows<Dtype>&, const ConvOfRows<Dtype>&, const ConvOfRows<Dtype>&);      \
  template void ForwardInRows<Dtype>(const ConvOfRows<Dtype>&, const ConvOfRows<Dtype>&, const ConvOfRows<Dtype>&, \
                                     const Dtype*, Dtype*, Dtype*, Dtype*)
INSTANTIATE_ROWS(float);
INSTANTIATE_ROWS(double);

}  // namespace caffe
