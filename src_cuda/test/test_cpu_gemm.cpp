// The threads of the CPU layers, and the matrix products on them against plain loops.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "caffe/util/cpu_gemm.hpp"
#include "caffe/util/parallel.hpp"
#include "cpu_layers_test.hpp"

namespace caffe {

template <typename Dtype>
class CpuGemmTest : public CpuLayersTest<Dtype> {};

TYPED_TEST_CASE(CpuGemmTest, Numbers);

TYPED_TEST(CpuGemmTest, ParallelForTakesEachOnce) {
  const int before = ParallelThreads();
  for (const int threads : {1, 2, 4}) {
    SetParallelThreads(threads);
    EXPECT_EQ(threads, ParallelThreads());
    for (const int n : {0, 1, 7, 1000}) {
      for (const int grain : {-1, 1, 3, 5000}) {
        std::vector<std::atomic<int>> taken(n);
        ParallelFor(n, grain, [&](int begin, int end) {
          ParallelFor(2, 1, [&](int, int) {});  // from inside: runs here
          for (int i = begin; i < end; ++i) { ++taken[i]; }
        });
        for (int i = 0; i < n; ++i) { EXPECT_EQ(1, taken[i]); }
      }
    }
  }
  // From several threads at once.
  std::atomic<int> sum(0);
  std::vector<std::thread> callers;
  for (int t = 0; t < 3; ++t) {
    callers.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        ParallelFor(10, 1, [&](int begin, int end) { sum += end - begin; });
      }
    });
  }
  for (std::thread& caller : callers) { caller.join(); }
  EXPECT_EQ(6000, sum);
  SetParallelThreads(before);
}

TYPED_TEST(CpuGemmTest, ProductsAgainstLoops) {
  typedef TypeParam Dtype;
  for (int round = 0; round < 120; ++round) {
    const bool wide = round % 3 == 0;
    const int M = this->Among(1, 70), N = this->Among(1, wide ? 900 : 120),
              K = this->Among(1, round % 5 == 0 ? 3000 : 90);
    SCOPED_TRACE(std::to_string(M) + " x " + std::to_string(N) + " x " + std::to_string(K));
    std::vector<Dtype> a(M * K), b(K * N), bias(M), c(M * N);
    this->Fill(a.data(), a.size());
    this->Fill(b.data(), b.size());
    this->Fill(bias.data(), M);
    this->Fill(c.data(), c.size());
    for (int way = 0; way < 3; ++way) {  // A B + bias, C + A^T B, C + A B^T
      std::vector<Dtype> got = c;
      if (way == 0) {
        CpuGemm(false, M, N, K, a.data(), b.data(), bias.data(), false, got.data());
      } else if (way == 1) {
        CpuGemm<Dtype>(true, M, N, K, a.data(), b.data(), nullptr, true, got.data());
      } else {
        CpuGemmTransposed(M, N, K, a.data(), b.data(), got.data());
      }
      double worst = 0;
      for (int i = 0; i < M; ++i) {
        for (int j = 0; j < N; ++j) {
          double wanted = way == 0 ? bias[i] : c[i * N + j];
          for (int k = 0; k < K; ++k) {
            wanted +=
                static_cast<double>(way == 1 ? a[k * M + i] : a[i * K + k]) * (way == 2 ? b[j * K + k] : b[k * N + j]);
          }
          worst = std::max(worst, std::fabs(wanted - got[i * N + j]));
        }
      }
      EXPECT_LE(worst, this->kNear * std::sqrt(K)) << "way " << way;
    }
  }
}

}  // namespace caffe
