#ifndef CAFFE_UTIL_DEPTHWISE_BLOCKS_HPP_
#define CAFFE_UTIL_DEPTHWISE_BLOCKS_HPP_

#include <algorithm>
#include <cstddef>
#include <vector>

#include "caffe/util/band.hpp"
#include "caffe/util/depthwise.hpp"
#include "caffe/util/kept_room.hpp"
#include "caffe/util/parallel.hpp"
#include "caffe/util/simd.hpp"

/**
 * How the depthwise convolution on the CPU divides its work: planes among the threads, rows of a plane into blocks, and
 * a row into vectors. Used by depthwise.cpp and depthwise_weights.cpp.
 */
namespace caffe {

/// Bytes of input rows that are held at a time: they stay in the first-level cache.
constexpr int kDepthwiseBandBytes = 24 * 1024;

/// Memory for `count` values that a thread keeps from call to call; which: 0, 1 or 2, to have up to three at a time.
template <typename T>
T* DepthwiseRoom(const int which, const size_t count) {
  static thread_local KeptRoom<T> rooms[3];
  return rooms[which].For(count);
}

/// Rows of outputs in a block: as many as keep its band within kDepthwiseBandBytes, but 8 at least.
template <typename T>
int RowsOfBlock(const DepthwiseShape& s, const int row_length) {
  const int rows = kDepthwiseBandBytes / static_cast<int>(sizeof(T)) / row_length;
  const int extent = (s.kernel_h - 1) * s.dilation_h + 1;
  return Clamp((rows - extent) / s.stride_h + 1, std::min(8, s.out_height), s.out_height);
}

/// Whether there is unrolled code for the kernel and stride of this shape.
inline bool Unrolls(const DepthwiseShape& s) {
  return s.kernel_h == s.kernel_w && s.kernel_h >= 3 && s.kernel_h <= 6 && s.stride_h == s.stride_w &&
         s.stride_h <= 2 && s.dilation_h == 1 && s.dilation_w == 1;
}

constexpr int AtLeast2(const int lanes) { return lanes < 2 ? 2 : lanes; }

/// The widest vector that a row of outputs fills, down to a quarter of the processor's.
template <typename T>
int LanesFor(const int count) {
  constexpr int most = SimdLanes<T>();
  return count >= most ? most : (count >= AtLeast2(most / 2) ? AtLeast2(most / 2) : AtLeast2(most / 4));
}

/// Planes that one thread takes at a time: some 20 microseconds of work.
inline int PlanesAtATime(const DepthwiseShape& s, const int planes) {
  const double work = static_cast<double>(s.out_height) * s.out_width * s.kernel_h * s.kernel_w + 2000;
  return ParallelGrain(planes, static_cast<int>(1 + 500000 / work));
}

}  // namespace caffe

#endif  // CAFFE_UTIL_DEPTHWISE_BLOCKS_HPP_
