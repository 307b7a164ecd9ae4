// What a rewritten .cu file is compiled against: CUDA's words, and the calls into the emulator. README.md in src_cuda
// says what the emulator checks.
#ifndef SSDLITE_CAFFE_EMULATOR_DEVICE_HPP_
#define SSDLITE_CAFFE_EMULATOR_DEVICE_HPP_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  // NOLINTNEXTLINE(runtime/explicit): a launch takes plain numbers
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emulator {

/// CUDA's built-in variables, set anew whenever another thread of the emulated device goes on.
struct Builtins {
  uint3 thread_index, block_index;
  dim3 block_size, grid_size;
};
extern Builtins builtins;

struct Site {
  const char* name;  // of the kernel, or the call
  const char* file;
  int line;
};

/// Runs `body(arguments)` once for each thread of each block. `size` is that of the arguments, which kernels may read.
void Run(const Site& site, const dim3& grid, const dim3& block, void (*body)(const void*), const void* arguments,
         size_t size);

/// kernel<<<grid, block>>>(arguments...), as rewrite.py writes it.
class Launch {
 public:
  Launch(const Site& site, const dim3& grid, const dim3& block) : site_(site), grid_(grid), block_(block) {}

  template <typename Kernel, typename... Arguments>
  void operator()(const Kernel& kernel, const Arguments&... arguments) const {
    typedef std::tuple<Kernel, Arguments...> Call;
    const Call call(kernel, arguments...);
    const auto body = [](const void* at) {
      std::apply([](const Kernel& run, const Arguments&... values) { run(values...); }, *static_cast<const Call*>(at));
    };
    Run(site_, grid_, block_, body, &call, sizeof(call));
  }

 private:
  const Site site_;
  const dim3 grid_, block_;
};

/// Memory of the block for one __shared__ variable, which `tag` stands for: unwritten when the block begins.
void* SharedMemory(const void* tag, size_t size, size_t alignment);

template <typename Variable>
Variable& Shared(const void* tag) {
  return *static_cast<Variable*>(SharedMemory(tag, sizeof(Variable), alignof(Variable)));
}

void Barrier(const Site& site);

enum Exchange { kIndex, kUp, kDown, kXor };

/// The number of the lane whose value a shuffle gives this lane; all lanes of `mask` have then arrived at `site`.
/// `value` is what this lane offers.
void Shuffle(const Site& site, Exchange exchange, unsigned mask, int lane_or_distance, int width, const void* value,
             void* result, size_t size);

template <typename T>
T Shuffled(const Site& site, Exchange exchange, unsigned mask, T value, int lane_or_distance, int width = 32) {
  static_assert(sizeof(T) <= 8, "a shuffle moves up to 8 bytes");
  T result;
  Shuffle(site, exchange, mask, lane_or_distance, width, &value, &result, sizeof(T));
  return result;
}

void WarpBarrier(const Site& site, unsigned mask);

/// In a copy of the code with mistakes (test/mistakes.py): whether this run makes the one with this number.
bool Seeded(int number);

}  // namespace emulator

#define EMULATOR_SITE(name) (::emulator::Site{name, __FILE__, __LINE__})
#define __syncthreads() ::emulator::Barrier(EMULATOR_SITE("__syncthreads"))
#define __syncwarp(...) ::emulator::WarpBarrier(EMULATOR_SITE("__syncwarp"), ::emulator::MaskOf(__VA_ARGS__))
#define __shfl_sync(mask, ...) ::emulator::Shuffled(EMULATOR_SITE("__shfl_sync"), ::emulator::kIndex, mask, __VA_ARGS__)
#define __shfl_up_sync(mask, ...) \
  ::emulator::Shuffled(EMULATOR_SITE("__shfl_up_sync"), ::emulator::kUp, mask, __VA_ARGS__)
#define __shfl_down_sync(mask, ...) \
  ::emulator::Shuffled(EMULATOR_SITE("__shfl_down_sync"), ::emulator::kDown, mask, __VA_ARGS__)
#define __shfl_xor_sync(mask, ...) \
  ::emulator::Shuffled(EMULATOR_SITE("__shfl_xor_sync"), ::emulator::kXor, mask, __VA_ARGS__)

namespace emulator {
inline unsigned MaskOf(unsigned mask = 0xffffffffu) { return mask; }
}  // namespace emulator

static constexpr uint3& threadIdx = ::emulator::builtins.thread_index;
static constexpr uint3& blockIdx = ::emulator::builtins.block_index;
static constexpr dim3& blockDim = ::emulator::builtins.block_size;
static constexpr dim3& gridDim = ::emulator::builtins.grid_size;
constexpr int warpSize = 32;

using std::max;
using std::min;

#define __ldg(at) (*(at))  // a macro, so that a finding names the kernel's line

#endif  // SSDLITE_CAFFE_EMULATOR_DEVICE_HPP_
