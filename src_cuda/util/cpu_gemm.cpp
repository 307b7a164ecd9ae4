// Matrix products for convolutions; see cpu_gemm.hpp for the reason.
//
// C = A B: B is copied into panels of up to kWide vectors of columns, so that a product reads it in order. A tile of
// kRows rows by one panel is summed in registers over all of K. A is not copied; its values are broadcast.
//
// C += A B^T: the operand with fewer rows is transposed into such panels, and the values of the other one are
// broadcast.
#include "caffe/util/cpu_gemm.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "caffe/common.hpp"
#include "caffe/util/kept_room.hpp"
#include "caffe/util/parallel.hpp"
#include "caffe/util/simd.hpp"

namespace caffe {

namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 8;  // 24 sums, 3 of B, 1 of A of 32 registers
#else
constexpr int kRows = 4;  // 12 sums, 3 of B, 1 of A of 16 registers
#endif
constexpr int kWide = 3;  // vectors in a panel

/// Memory of the calling thread; which: 0 or 1.
template <typename T>
T* Room(const int which, const size_t count) {
  static thread_local KeptRoom<T> rooms[2];
  return rooms[which].For(count);
}

/// What the sums start with (the bias, or 0 if it is null), and whether C is added to them.
template <typename T>
struct Begin {
  const T* bias;
  bool keep;
};

/// The columns of B for a tile, copied: K x (vectors of the tile).
template <typename T>
struct Packed {
  const T* panel;

  const T* Row(const int k, const int columns) const { return panel + static_cast<size_t>(k) * columns; }
};

/// The columns of B for a tile, not copied: row k begins at band + starts[k].
template <typename T>
struct Placed {
  const T* band;
  const int* starts;

  const T* Row(const int k, int) const { return band + starts[k]; }
};

/// Rows x (Wide vectors of Lanes) of C. Value (i, k) of A is at A[i * stride + k], if Transposed at A[k * stride + i].
template <typename T, int Lanes, int Rows, int Wide, bool Transposed, typename Source>
void MultiplyTile(const int K, const T* A, const size_t stride, const Source B, const int columns, const Begin<T> start,
                  const size_t ldc, T* C) {
  typedef SimdT<T, Lanes> V;
  V sum[Rows][Wide];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < Wide; ++v) { sum[i][v] = SimdSet<T, Lanes>(start.bias == nullptr ? T(0) : start.bias[i]); }
  }
  for (int k = 0; k < K; ++k) {
    const T* from = B.Row(k, Wide * Lanes);
    V b[Wide];
#pragma GCC unroll 8
    for (int v = 0; v < Wide; ++v) { b[v] = SimdLoad<T, Lanes>(from + v * Lanes); }
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const T a = Transposed ? A[k * stride + i] : A[i * stride + k];
#pragma GCC unroll 8
      for (int v = 0; v < Wide; ++v) { sum[i][v] += a * b[v]; }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < Wide; ++v) {
      T* to = C + i * ldc + v * Lanes;
      const int left = columns - v * Lanes;
      if (left >= Lanes) {
        if (start.keep) { sum[i][v] += SimdLoad<T, Lanes>(to); }
        SimdStore<T, Lanes>(sum[i][v], to);
      } else {
        T some[Lanes];
        SimdStore<T, Lanes>(sum[i][v], some);
        for (int x = 0; x < left; ++x) { to[x] = start.keep ? to[x] + some[x] : some[x]; }
      }
    }
  }
}

template <typename T, typename Source>
using Tile = void (*)(int, const T*, size_t, Source, int, const Begin<T>, size_t, T*);

template <typename T, int Lanes, int Wide, bool Transposed, typename Source, int Rows = kRows>
struct TileOfRows {
  static Tile<T, Source> Of(const int rows) {
    return rows >= Rows ? MultiplyTile<T, Lanes, Rows, Wide, Transposed, Source>
                        : TileOfRows<T, Lanes, Wide, Transposed, Source, Rows - 1>::Of(rows);
  }
};

template <typename T, int Lanes, int Wide, bool Transposed, typename Source>
struct TileOfRows<T, Lanes, Wide, Transposed, Source, 1> {
  static Tile<T, Source> Of(int) { return MultiplyTile<T, Lanes, 1, Wide, Transposed, Source>; }
};

/// Lanes of a vector that holds a quarter of the widest one.
template <typename T>
constexpr int FewLanes() {
  return SimdLanes<T>() < 8 ? 2 : SimdLanes<T>() / 4;
}

/// `columns` rounded up to what a tile computes: whole vectors, or one short vector for very few.
template <typename T>
int PaddedColumns(const int columns) {
  constexpr int lanes = SimdLanes<T>();
  return columns <= FewLanes<T>() ? FewLanes<T>() : (columns + lanes - 1) / lanes * lanes;
}

/// The tile for this many rows (kRows at most) and columns (kWide vectors at most).
template <typename T, bool Transposed, typename Source>
Tile<T, Source> TileFor(const int rows, const int columns) {
  constexpr int lanes = SimdLanes<T>();
  const int padded = PaddedColumns<T>(columns);
  if (padded < lanes) { return TileOfRows<T, FewLanes<T>(), 1, Transposed, Source>::Of(rows); }
  return padded == lanes       ? TileOfRows<T, lanes, 1, Transposed, Source>::Of(rows)
         : padded == 2 * lanes ? TileOfRows<T, lanes, 2, Transposed, Source>::Of(rows)
                               : TileOfRows<T, lanes, 3, Transposed, Source>::Of(rows);
}

template <typename T>
struct Product {
  bool transposed;
  int M, N, K;
  const T* A;
  const T* B;
  const T* bias;
  bool keep;
  T* C;

  static constexpr int lanes = SimdLanes<T>();
  static constexpr int panel_columns = kWide * lanes;

  int panels() const { return (N + panel_columns - 1) / panel_columns; }
  size_t panel_size() const { return static_cast<size_t>(K) * panel_columns; }
  int ColumnsOf(const int panel) const { return std::min(panel_columns, N - panel * panel_columns); }

  void Pack(const int panel, T* to) const {
    const int columns = ColumnsOf(panel);
    const int padded = PaddedColumns<T>(columns);
    const T* from = B + static_cast<size_t>(panel) * panel_columns;
    if (columns == panel_columns) {
      for (int k = 0; k < K; ++k, from += N, to += panel_columns) {
        for (int v = 0; v < kWide; ++v) { SimdStore<T, lanes>(SimdLoad<T, lanes>(from + v * lanes), to + v * lanes); }
      }
      return;
    }
    for (int k = 0; k < K; ++k, from += N, to += padded) {
      std::copy(from, from + columns, to);
      std::fill(to + columns, to + padded, T(0));
    }
  }

  /// Rows [first, end) of the columns of a panel.
  void Multiply(const int panel, const T* packed, const int first, const int end) const {
    const int columns = ColumnsOf(panel);
    for (int row = first; row < end; row += kRows) {
      const int rows = std::min(kRows, end - row);
      const T* a = transposed ? A + row : A + static_cast<size_t>(row) * K;
      const Begin<T> start = {bias == nullptr ? nullptr : bias + row, keep};
      const auto tile =
          transposed ? TileFor<T, true, Packed<T>>(rows, columns) : TileFor<T, false, Packed<T>>(rows, columns);
      tile(K, a, transposed ? M : K, Packed<T>{packed}, columns, start, N,
           C + static_cast<size_t>(row) * N + static_cast<size_t>(panel) * panel_columns);
    }
  }

  /// Panels that stay in the second-level cache while a tile's rows of A stay in the first.
  int PanelsAtATime() const { return std::max(1, static_cast<int>(256 * 1024 / (panel_size() * sizeof(T)))); }

  /// Packs the panels [begin, end). Whole ones row by row: so many columns of a row are read in order that the
  /// processor fetches them ahead.
  void PackPanels(const int begin, const int end, T* to) const {
    const int whole = std::min(end, N / panel_columns);
    for (int k = 0; k < K; ++k) {
      const T* from = B + static_cast<size_t>(k) * N + static_cast<size_t>(begin) * panel_columns;
      T* row = to + static_cast<size_t>(k) * panel_columns;
      for (int p = begin; p < whole; ++p, from += panel_columns, row += panel_size()) {
        for (int v = 0; v < kWide; ++v) { SimdStore<T, lanes>(SimdLoad<T, lanes>(from + v * lanes), row + v * lanes); }
      }
    }
    if (end > whole) { Pack(end - 1, to + (end - 1 - begin) * panel_size()); }
  }

  /// All rows of the panels [begin, end), on the calling thread.
  void RunPanels(const int begin, const int end) const {
    T* packed = Room<T>(0, (end - begin) * panel_size());
    PackPanels(begin, end, packed);
    for (int row = 0; row < M; row += kRows) {
      for (int p = begin; p < end; ++p) {
        Multiply(p, packed + (p - begin) * panel_size(), row, std::min(row + kRows, M));
      }
    }
  }

  void Run() const {
    const int all = panels();
    if (all >= 4 * ParallelThreads()) {
      // Each thread packs panels of its own.
      const int grain = std::min(ParallelGrain(all, 1), PanelsAtATime());
      ParallelFor(all, grain, [this](const int begin, const int end) { RunPanels(begin, end); });
      return;
    }
    // Few columns: all panels are packed first, then the rows are divided among the threads.
    T* packed = Room<T>(1, all * panel_size());
    ParallelFor(all, static_cast<int>(1 + 65536 / panel_size()), [=](const int begin, const int end) {
      for (int p = begin; p < end; ++p) { Pack(p, packed + p * panel_size()); }
    });
    const int tiles = (M + kRows - 1) / kRows;
    const int least = static_cast<int>(1 + 400000 / (static_cast<size_t>(K) * N * kRows));
    ParallelFor(tiles, ParallelGrain(tiles, least), [=](const int begin, const int end) {
      for (int row = begin * kRows; row < std::min(end * kRows, M); row += kRows) {
        for (int p = 0; p < all; ++p) { Multiply(p, packed + p * panel_size(), row, std::min(row + kRows, M)); }
      }
    });
  }
};

// ---- C += A B^T

/// C (M x N) += A B^T over columns [first, end) of A (M x K) and B (N x K).
template <typename T>
struct TransposedProduct {
  int M, N;
  size_t K;
  const T* A;
  const T* B;

  static constexpr int lanes = SimdLanes<T>();
  static constexpr int panel_columns = kWide * lanes;

  int panels() const { return (N + panel_columns - 1) / panel_columns; }
  int ColumnsOf(const int panel) const { return std::min(panel_columns, N - panel * panel_columns); }

  /// Rows of B as columns of a panel, `length` of K.
  void Pack(const int panel, const int first, const int length, T* to) const {
    const int columns = ColumnsOf(panel);
    const int padded = PaddedColumns<T>(columns);
    const T* from = B + static_cast<size_t>(panel) * panel_columns * K + first;
    int j = 0;
    for (; j + 4 <= columns; j += 4) {
      const T* rows = from + j * K;
      int k = 0;
      for (; k + 4 <= length; k += 4) { SimdTranspose(rows + k, K, to + static_cast<size_t>(k) * padded + j, padded); }
      for (; k < length; ++k) {
        for (int i = 0; i < 4; ++i) { to[static_cast<size_t>(k) * padded + j + i] = rows[i * K + k]; }
      }
    }
    for (; j < padded; ++j) {
      for (int k = 0; k < length; ++k) {
        to[static_cast<size_t>(k) * padded + j] = j < columns ? from[j * K + k] : T(0);
      }
    }
  }

  void Multiply(const int panel, const T* packed, const int first, const int length, const int row, T* C) const {
    const int columns = ColumnsOf(panel);
    const int rows = std::min(kRows, M - row);
    const Begin<T> start = {nullptr, true};
    TileFor<T, false, Packed<T>>(rows, columns)(length, A + row * K + first, K, Packed<T>{packed}, columns, start, N,
                                                C + static_cast<size_t>(row) * N + panel * panel_columns);
  }

  /// How much of K is multiplied at a time: a panel stays in the first-level cache, all panels in the second-level one.
  int Stretch() const {
    const int all = static_cast<int>(256 * 1024 / sizeof(T)) / (panels() * panel_columns);
    return std::max(64, std::min(256, all));
  }

  /// Columns [first, end) of A and B on this thread.
  void Run(const int first, const int end, T* C) const {
    const int most = Stretch();
    for (int k = first; k < end; k += most) {
      const int length = std::min(most, end - k);
      T* packed = Room<T>(0, static_cast<size_t>(panels()) * length * panel_columns);
      for (int p = 0; p < panels(); ++p) {
        Pack(p, k, length, packed + static_cast<size_t>(p) * length * panel_columns);
      }
      for (int row = 0; row < M; row += kRows) {
        for (int p = 0; p < panels(); ++p) {
          Multiply(p, packed + static_cast<size_t>(p) * length * panel_columns, k, length, row, C);
        }
      }
    }
  }

  /// All of K; first the packing of the panels is divided among the threads, then the rows.
  void RunByRows(T* C) const {
    const int most = 1024;
    for (int k = 0; k < static_cast<int>(K); k += most) {
      const int length = std::min(most, static_cast<int>(K) - k);
      const size_t size = static_cast<size_t>(length) * panel_columns;
      T* packed = Room<T>(1, panels() * size);
      ParallelFor(panels(), static_cast<int>(1 + 32768 / size), [=](const int begin, const int end) {
        for (int p = begin; p < end; ++p) { Pack(p, k, length, packed + p * size); }
      });
      const int tiles = (M + kRows - 1) / kRows;
      const int least = static_cast<int>(1 + 400000 / (static_cast<size_t>(length) * N * kRows));
      ParallelFor(tiles, ParallelGrain(tiles, least), [=](const int begin, const int end) {
        for (int row = begin * kRows; row < std::min(end * kRows, M); row += kRows) {
          for (int p = 0; p < panels(); ++p) { Multiply(p, packed + p * size, k, length, row, C); }
        }
      });
    }
  }
};

}  // namespace

template <typename Dtype>
void CpuGemm(const bool transposed, const int M, const int N, const int K, const Dtype* A, const Dtype* B,
             const Dtype* bias, const bool keep, Dtype* C) {
  if (M == 0 || N == 0) { return; }
  const Product<Dtype> product = {transposed, M, N, K, A, B, bias, keep, C};
  product.Run();
}

template <typename Dtype>
void CpuGemmPlaced(const int M, const int columns, const int K, const Dtype* A, const Dtype* B, const int* starts,
                   const Dtype* bias, const size_t ldc, Dtype* C) {
  constexpr int most = kWide * SimdLanes<Dtype>();
  for (int row = 0; row < M; row += kRows) {
    const int rows = std::min(kRows, M - row);
    const Begin<Dtype> start = {bias == nullptr ? nullptr : bias + row, false};
    for (int x = 0; x < columns; x += most) {
      const int count = std::min(most, columns - x);
      TileFor<Dtype, false, Placed<Dtype>>(rows, count)(
          K, A + static_cast<size_t>(row) * K, K, Placed<Dtype>{B + x, starts}, count, start, ldc, C + row * ldc + x);
    }
  }
}

template <typename Dtype>
void CpuGemmTransposed(const int M, const int N, const int K, const Dtype* A, const Dtype* B, Dtype* C) {
  if (M == 0 || N == 0) { return; }
  const int parts = ParallelThreads();
  const bool by_rows = static_cast<size_t>(K) < static_cast<size_t>(512) * parts || M >= 4 * kRows * parts;
  // The operand with fewer rows is cheaper to transpose; if that is A, the result is C transposed.
  const bool swap = M < 64 && N > M;
  if (by_rows && !swap) {
    TransposedProduct<Dtype>{M, N, static_cast<size_t>(K), A, B}.RunByRows(C);
    return;
  }
  const TransposedProduct<Dtype> product = swap ? TransposedProduct<Dtype>{N, M, static_cast<size_t>(K), B, A}
                                                : TransposedProduct<Dtype>{M, N, static_cast<size_t>(K), A, B};
  // Each thread sums its own part of K; the parts are added in their order, so that a run can be repeated exactly.
  const size_t size = static_cast<size_t>(M) * N;
  const int used = by_rows ? 1 : parts;
  std::vector<Dtype> sums(used * size);
  if (by_rows) {
    product.RunByRows(sums.data());
  } else {
    ParallelFor(parts, 1, [&](const int begin, const int end) {
      for (int p = begin; p < end; ++p) {
        product.Run(static_cast<int>(static_cast<int64_t>(K) * p / parts),
                    static_cast<int>(static_cast<int64_t>(K) * (p + 1) / parts), sums.data() + p * size);
      }
    });
  }
  for (int p = 0; p < used; ++p) {
    const Dtype* part = sums.data() + p * size;
    for (int i = 0; i < M; ++i) {
      for (int j = 0; j < N; ++j) { C[static_cast<size_t>(i) * N + j] += swap ? part[j * M + i] : part[i * N + j]; }
    }
  }
}

#define INSTANTIATE_GEMM(Dtype)                                                                                   \
  template void CpuGemm<Dtype>(bool, int, int, int, const Dtype*, const Dtype*, const Dtype*, bool, Dtype*);      \
  template void CpuGemmPlaced<Dtype>(int, int, int, const Dtype*, const Dtype*, const int*, const Dtype*, size_t, \
                                     Dtype*);                                                                     \
  template void CpuGemmTransposed<Dtype>(int, int, int, const Dtype*, const Dtype*, Dtype*)
INSTANTIATE_GEMM(float);
INSTANTIATE_GEMM(double);

}  // namespace caffe
