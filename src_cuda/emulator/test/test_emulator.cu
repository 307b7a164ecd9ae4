// The emulator's own tests: kernels that are right leave no finding, and each kind of mistake leaves its own.
#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "cublas_v2.h"
#include "emulator.hpp"
#include "gtest/gtest.h"

namespace {

__global__ void Number(int* to) { to[blockIdx.x * blockDim.x + threadIdx.x] = blockIdx.x * blockDim.x + threadIdx.x; }

__global__ void Turn(const float* from, float* to, const bool barrier) {
  __shared__ float held[64];
  held[threadIdx.x] = from[threadIdx.x];
  if (barrier) { __syncthreads(); }
  to[threadIdx.x] = held[63 - threadIdx.x];
}

__global__ void WarpSum(const float* from, float* to) {
  float value = from[threadIdx.x];
  for (int apart = 16; apart > 0; apart /= 2) { value += __shfl_down_sync(0xffffffffu, value, apart); }
  if (threadIdx.x % 32 == 0) { to[threadIdx.x / 32] = value; }
}

__global__ void ShuffleKinds(int* to) {
  const int lane = threadIdx.x;
  to[lane] = __shfl_sync(0xffffffffu, lane, 5);
  to[32 + lane] = __shfl_up_sync(0xffffffffu, lane, 3);
  to[64 + lane] = __shfl_xor_sync(0xffffffffu, lane, 6);
  to[96 + lane] = __shfl_down_sync(0xffffffffu, lane, 3, 8);
}

__global__ void WithinWarp(int* to, const bool barrier) {
  __shared__ int held[32];
  held[threadIdx.x] = threadIdx.x;
  if (barrier) { __syncwarp(); }
  to[threadIdx.x] = held[31 - threadIdx.x];
}

__global__ void Places(int* to) {
  const dim3 at(blockIdx.x * blockDim.x + threadIdx.x, blockIdx.y * blockDim.y + threadIdx.y,
                blockIdx.z * blockDim.z + threadIdx.z);
  const dim3 size(gridDim.x * blockDim.x, gridDim.y * blockDim.y, gridDim.z * blockDim.z);
  const int place = (at.z * size.y + at.y) * size.x + at.x;
  to[place] = place;
}

// ---- mistakes
__global__ void ReadAt(const float* from, float* to, const int at) { to[0] = from[at]; }
__global__ void WriteAt(float* to, const int at) { to[at] = 1; }
__global__ void HalfBarrier() {
  if (threadIdx.x < 16) { __syncthreads(); }
}
__global__ void TwoBarriers() {
  if (threadIdx.x < 16) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void SameCell(int* to) { to[0] = threadIdx.x; }
__global__ void NextCell(int* to) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  to[i] = i + to[(i + 1) % (gridDim.x * blockDim.x)];
}
__global__ void SharedUnwritten(float* to) {
  __shared__ float held[32];
  if (threadIdx.x < 31) { held[threadIdx.x] = 1; }
  __syncthreads();
  to[threadIdx.x] = held[threadIdx.x];
}
__global__ void SharedBeyond(float* to) {
  __shared__ float held[32];
  held[threadIdx.x + 1] = 1;
  __syncthreads();
  to[threadIdx.x] = 1;
}
__global__ void OwnBeyond(float* to, const int last) {
  float own[4] = {1, 2, 3, 4};
  float sum = 0;
  for (int i = 0; i <= last; ++i) { sum += own[i]; }
  to[0] = sum;
}
__global__ void OwnUnwritten(float* to, const int times) {
  float sum;
  for (int i = 0; i < times; ++i) { sum += 1; }
  to[0] = sum;
}
__global__ void NarrowMask(int* to) { to[threadIdx.x] = __shfl_down_sync(0x0000ffffu, threadIdx.x, 1); }
__global__ void LanesMissing(int* to) {
  if (threadIdx.x < 8) { to[threadIdx.x] = __shfl_down_sync(0xffffffffu, threadIdx.x, 1); }
}
__global__ void OddWidth(int* to) { to[threadIdx.x] = __shfl_down_sync(0xffffffffu, threadIdx.x, 1, 12); }
__global__ void Misaligned(char* to) { *reinterpret_cast<double*>(to + 4) = 1; }
__global__ void TooMuchShared() {
  __shared__ float held[13 << 10];
  held[threadIdx.x] = 1;
}
__global__ void LeaveAddress(const int** to) {
  const int own = threadIdx.x;
  if (threadIdx.x == 0) { to[0] = &own; }
  __syncthreads();
  if (threadIdx.x == 1) { to[1 + *to[0]] = nullptr; }
}

class EmulatorTest : public ::testing::Test {
 protected:
  ~EmulatorTest() override {
    for (void* const at : owned_) { cudaFree(at); }
  }

  template <typename T>
  T* Device(const std::vector<T>& values) {
    T* const at = Unwritten<T>(values.size());
    cudaMemcpy(at, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice);
    return at;
  }
  template <typename T>
  T* Unwritten(const size_t count) {
    T* at = nullptr;
    EXPECT_EQ(cudaSuccess, cudaMalloc(&at, count * sizeof(T)));
    owned_.push_back(at);
    return at;
  }
  template <typename T>
  std::vector<T> Host(const T* at, const size_t count) {
    std::vector<T> values(count);
    cudaMemcpy(values.data(), at, count * sizeof(T), cudaMemcpyDeviceToHost);
    return values;
  }
  static std::vector<int> UpTo(const int count) {
    std::vector<int> values(count);
    std::iota(values.begin(), values.end(), 0);
    return values;
  }
  static std::string Kinds() {
    std::string kinds;
    for (const emulator::Finding& finding : emulator::TakeFindings()) { kinds += finding.kind + "."; }
    return kinds;
  }

 private:
  std::vector<void*> owned_;
};

TEST_F(EmulatorTest, BlocksAndThreads) {
  int* const to = Unwritten<int>(7 * 96);
  Number<<<7, 96>>>(to);
  EXPECT_EQ(UpTo(7 * 96), Host(to, 7 * 96));
  int* const places = Unwritten<int>(3 * 8 * 2 * 4 * 2 * 3);
  Places<<<dim3(3, 2, 2), dim3(8, 4, 3)>>>(places);
  EXPECT_EQ(UpTo(3 * 8 * 2 * 4 * 2 * 3), Host(places, 3 * 8 * 2 * 4 * 2 * 3));
}

TEST_F(EmulatorTest, BarriersAndShuffles) {
  std::vector<float> values(64), turned(64);
  std::iota(values.begin(), values.end(), 1);
  std::reverse_copy(values.begin(), values.end(), turned.begin());
  float* const to = Unwritten<float>(64);
  Turn<<<1, 64>>>(Device(values), to, true);
  EXPECT_EQ(turned, Host(to, 64));
  float* const sums = Unwritten<float>(2);
  WarpSum<<<1, 64>>>(Device(values), sums);
  EXPECT_EQ(std::vector<float>({32 * 33 / 2, 64 * 65 / 2 - 32 * 33 / 2}), Host(sums, 2));
  int* const kinds = Unwritten<int>(128);
  ShuffleKinds<<<1, 32>>>(kinds);
  const std::vector<int> got = Host(kinds, 128);
  for (int lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(5, got[lane]);
    EXPECT_EQ(lane < 3 ? lane : lane - 3, got[32 + lane]);
    EXPECT_EQ(lane ^ 6, got[64 + lane]);
    EXPECT_EQ(lane % 8 < 5 ? lane + 3 : lane, got[96 + lane]);
  }
  int* const within = Unwritten<int>(32);
  WithinWarp<<<1, 32>>>(within, true);
  EXPECT_EQ(31, Host(within, 32)[0]);
}

TEST_F(EmulatorTest, TheSeedDecidesTheOrder) {
  std::map<int, int> last;
  for (uint32_t seed = 0; seed < 20; ++seed) {
    int ends[2];
    for (int& end : ends) {
      emulator::SetSeed(seed);
      int* const to = Unwritten<int>(1);
      SameCell<<<1, 32>>>(to);
      end = Host(to, 1)[0];
    }
    EXPECT_EQ(ends[0], ends[1]);
    ++last[ends[0]];
  }
  EXPECT_GT(last.size(), 5u);
  EXPECT_EQ("race.", Kinds());
}

TEST_F(EmulatorTest, OutOfBounds) {
  float* const four = Device<float>({1, 2, 3, 4});
  float* const to = Unwritten<float>(1);
  ReadAt<<<1, 1>>>(four, to, 4);
  EXPECT_EQ("out of bounds.", Kinds());
  ReadAt<<<1, 1>>>(four, to, -1);
  EXPECT_EQ("out of bounds.", Kinds());
  WriteAt<<<1, 1>>>(four, 4);
  EXPECT_EQ("out of bounds.", Kinds());
  SharedBeyond<<<1, 32>>>(Unwritten<float>(32));
  EXPECT_EQ("undefined.out of bounds.", Kinds());
  OwnBeyond<<<1, 1>>>(to, 4);
  EXPECT_EQ("undefined.", Kinds());
  std::vector<float> host(1);
  WriteAt<<<1, 1>>>(host.data(), 0);
  EXPECT_EQ("out of bounds.", Kinds());
  LeaveAddress<<<1, 2>>>(Unwritten<const int*>(3));
  EXPECT_EQ("out of bounds.", Kinds());
  float* freed = nullptr;
  cudaMalloc(&freed, sizeof(float));
  cudaFree(freed);
  ReadAt<<<1, 1>>>(freed, to, 0);
  EXPECT_EQ("out of bounds.", Kinds());
  cudaFree(freed);
  EXPECT_EQ("out of bounds.", Kinds());
}

TEST_F(EmulatorTest, Unwritten) {
  float* const to = Unwritten<float>(32);
  ReadAt<<<1, 1>>>(Unwritten<float>(1), to, 0);
  EXPECT_EQ("unwritten.", Kinds());
  float* const zeros = Unwritten<float>(1);
  cudaMemset(zeros, 0, sizeof(float));  // as SyncedMemory does with all memory
  ReadAt<<<1, 1>>>(zeros, to, 0);
  EXPECT_EQ("unwritten.", Kinds());
  cudaMemset(zeros, 0, sizeof(float));
  ReadAt<<<1, 1>>>(zeros, to, 0);
  EXPECT_EQ("", Kinds());
  SharedUnwritten<<<1, 32>>>(to);
  EXPECT_EQ("unwritten.", Kinds());
  Host(Unwritten<float>(3), 3);
  EXPECT_EQ("unwritten.", Kinds());
  OwnUnwritten<<<1, 1>>>(to, 3);  // no finding, but no value that a test could take for a right one
  EXPECT_LT(Host(to, 1)[0], -1e30f);
  EXPECT_EQ("", Kinds());
}

TEST_F(EmulatorTest, Races) {
  float* const to = Unwritten<float>(64);
  Turn<<<1, 64>>>(Device(std::vector<float>(64, 1)), to, false);
  EXPECT_NE(std::string::npos, Kinds().find("race."));
  SameCell<<<1, 2>>>(Unwritten<int>(1));
  EXPECT_EQ("race.", Kinds());
  SameCell<<<2, 1>>>(Unwritten<int>(1));
  EXPECT_EQ("race.", Kinds());
  NextCell<<<4, 1>>>(Device(UpTo(4)));
  EXPECT_NE(std::string::npos, Kinds().find("race."));
  WithinWarp<<<1, 32>>>(Unwritten<int>(32), false);
  EXPECT_NE(std::string::npos, Kinds().find("race."));
}

TEST_F(EmulatorTest, BarriersThatAreNotReached) {
  HalfBarrier<<<1, 32>>>();
  EXPECT_EQ("barrier.", Kinds());
  TwoBarriers<<<1, 32>>>();
  EXPECT_EQ("barrier.", Kinds());
}

TEST_F(EmulatorTest, Masks) {
  int* const to = Unwritten<int>(32);
  NarrowMask<<<1, 32>>>(to);
  EXPECT_NE(std::string::npos, Kinds().find("mask."));
  LanesMissing<<<1, 32>>>(to);
  EXPECT_EQ("mask.", Kinds());
  NarrowMask<<<1, 8>>>(to);
  EXPECT_NE(std::string::npos, Kinds().find("mask."));
  OddWidth<<<1, 32>>>(to);
  EXPECT_NE(std::string::npos, Kinds().find("mask."));
}

TEST_F(EmulatorTest, OtherRules) {
  Misaligned<<<1, 1>>>(Unwritten<char>(16));
  EXPECT_EQ("misaligned.", Kinds());
  TooMuchShared<<<1, 1>>>();
  EXPECT_EQ("shared.", Kinds());
  for (const dim3 grid : {dim3(0), dim3(1, 65536), dim3(1, 1, 65536)}) {
    Number<<<grid, 1>>>(nullptr);
    EXPECT_EQ(cudaErrorInvalidConfiguration, cudaGetLastError());
  }
  Number<<<1, 1025>>>(nullptr);
  EXPECT_EQ(cudaErrorInvalidConfiguration, cudaPeekAtLastError());
  EXPECT_EQ(cudaErrorInvalidConfiguration, cudaGetLastError());
  EXPECT_EQ(cudaSuccess, cudaGetLastError());
}

TEST_F(EmulatorTest, Libraries) {
  const float one = 1, none = 0;
  float* const a = Device<float>({1, 2, 3, 4, 5, 6});
  float* const c = Unwritten<float>(4);
  // By columns: A is 2 x 3, its transpose 3 x 2.
  EXPECT_EQ(CUBLAS_STATUS_SUCCESS,
            cublasSgemm(nullptr, CUBLAS_OP_N, CUBLAS_OP_T, 2, 2, 3, &one, a, 2, a, 2, &none, c, 2));
  EXPECT_EQ(std::vector<float>({35, 44, 44, 56}), Host(c, 4));
  EXPECT_EQ("", Kinds());
  cublasSgemm(nullptr, CUBLAS_OP_N, CUBLAS_OP_T, 2, 2, 4, &one, a, 2, a, 2, &none, c, 2);
  EXPECT_NE(std::string::npos, Kinds().find("out of bounds."));
  cublasSaxpy(nullptr, 4, &one, a, 1, Unwritten<float>(4), 1);
  EXPECT_EQ("unwritten.", Kinds());
}

TEST_F(EmulatorTest, CopiesAreCounted) {
  const emulator::Copies& copies = emulator::AllCopies();
  const size_t in = copies.to_device.size(), out = copies.to_host.size(), within = copies.within_device;
  float* const at = Device<float>({1, 2});
  cudaMemcpy(Unwritten<float>(2), at, 8, cudaMemcpyDefault);
  Host(at, 1);
  EXPECT_EQ(in + 1, copies.to_device.size());
  EXPECT_EQ(8u, copies.to_device.back());
  EXPECT_EQ(out + 1, copies.to_host.size());
  EXPECT_EQ(within + 1, copies.within_device);
}

TEST_F(EmulatorTest, TheHostHasNoDeviceMemory) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  float* const at = Device<float>({1, 2});
  EXPECT_DEATH(static_cast<volatile float*>(at)[1] = 3,
               "the host touches the device's memory: byte 4 of an allocation of 8");
}

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
