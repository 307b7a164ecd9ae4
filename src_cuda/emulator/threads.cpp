// The device's threads: fibers of one thread of the host, which go on in an order that the seed decides.
#include <sys/mman.h>

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <cstdlib>
#include <numeric>
#include <sstream>
#include <vector>

#include "internal.hpp"

namespace emulator {

Builtins builtins;

namespace {

constexpr size_t kStack = 128 << 10, kGuard = 4 << 10;
constexpr int kMostThreads = 1024, kWarp = 32;
constexpr size_t kMostShared = 48 << 10, kBetween = 64;
constexpr uint64_t kMostBlocks = 1 << 24;

uint64_t state = [] {
  const char* const seed = std::getenv("EMULATOR_SEED");
  return seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10) + 1;
}();

/// A stack of `stacks`, with a closed page below.
struct StackSlot {
  int number;

  boost::context::stack_context allocate() const {
    boost::context::stack_context made;
    made.size = kStack;
    made.sp = stacks.base + (number + 1) * (kStack + kGuard);
    return made;
  }
  void deallocate(boost::context::stack_context&) {}
};

enum class State { kReady, kAtBarrier, kAtShuffle, kDone };

struct Worker {
  boost::context::fiber fiber;
  const char *stack, *stack_end;
};

struct Thread {
  State state;
  uint3 index;
  Worker* worker;  // where it runs, once it has begun
  uint16_t warp_epoch;
  Site site;  // where it waits
  // of a shuffle
  Exchange exchange;
  bool memory;  // a barrier of the warp, which moves no value
  unsigned mask;
  int lane_or_distance, width;
  size_t size;
  char value[8];
  void* result;
};

struct SharedVariable {
  const void* tag;
  size_t offset, size;
};

class Device {
 public:
  void RunAll(const dim3& grid, const dim3& block, void (*body)(const void*), const void* arguments);
  void Wait();
  void Arrive(const Site& site);
  void ArriveAtShuffle();
  void* SharedFor(const void* tag, size_t size, size_t alignment);
  Thread& current() { return threads_[current_]; }
  void ForgetShared();

 private:
  void RunBlock();
  void Resume(int thread);
  void Enter(int thread);
  void Work(Worker* self);
  void Release(int thread);
  void Untangle();
  void Complete(unsigned mask, int warp);

  std::vector<Thread> threads_ = std::vector<Thread>(kMostThreads);
  std::vector<Worker*> idle_, all_;
  std::vector<int> ready_;
  std::vector<SharedVariable> shared_;
  boost::context::fiber scheduler_;
  int count_ = 0, current_ = 0, unfinished_ = 0;
  size_t shared_used_ = 0;
  void (*body_)(const void*) = nullptr;
  const void* arguments_ = nullptr;
};

Device& device() {
  static Device* const made = new Device();  // never destroyed: its fibers do not end
  return *made;
}

void Device::RunAll(const dim3& grid, const dim3& block, void (*body)(const void*), const void* arguments) {
  body_ = body;
  arguments_ = arguments;
  count_ = block.x * block.y * block.z;
  builtins.block_size = block;
  builtins.grid_size = grid;
  running.first_of_launch = ++running.interval;
  std::vector<uint32_t> order(static_cast<size_t>(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i > 1; --i) { std::swap(order[i - 1], order[Random() % i]); }
  for (const uint32_t at : order) {
    builtins.block_index = {at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y};
    RunBlock();
  }
}

void Device::RunBlock() {
  running.first_of_block = ++running.interval;
  for (const SharedVariable& variable : shared_) {
    Provide(shared_memory, shared_memory.base + variable.offset, variable.size);
  }
  const dim3& size = builtins.block_size;
  ready_.clear();
  for (int i = 0; i < count_; ++i) {
    Thread& thread = threads_[i];
    thread.state = State::kReady;
    thread.worker = nullptr;
    thread.warp_epoch = 0;
    thread.index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    Release(i);
  }
  unfinished_ = count_;
  while (unfinished_ > 0) {
    while (!ready_.empty()) {
      const int next = ready_.back();
      ready_.pop_back();
      Resume(next);
    }
    if (unfinished_ > 0) { Untangle(); }
  }
}

/// Puts a thread anywhere among those that can go on.
void Device::Release(const int thread) {
  threads_[thread].state = State::kReady;
  ready_.push_back(thread);
  std::swap(ready_.back(), ready_[Random() % ready_.size()]);
}

void Device::Enter(const int thread) {
  current_ = thread;
  Thread& now = threads_[thread];
  builtins.thread_index = now.index;
  running.thread = thread;
  running.warp_epoch = now.warp_epoch;
  running.stack = now.worker->stack;
  running.stack_end = now.worker->stack_end;
  running.kernel = true;
}

void Device::Work(Worker* const self) {
  for (;;) {
    const int thread = current_;
    threads_[thread].worker = self;
    Enter(thread);
    body_(arguments_);
    running.kernel = false;
    threads_[thread].state = State::kDone;
    --unfinished_;
    // A thread that has not begun needs no other fiber than this one.
    if (!ready_.empty() && threads_[ready_.back()].worker == nullptr) {
      current_ = ready_.back();
      ready_.pop_back();
      continue;
    }
    idle_.push_back(self);
    scheduler_ = std::move(scheduler_).resume();
  }
}

void Device::Resume(const int thread) {
  current_ = thread;
  Worker* worker = threads_[thread].worker;
  if (worker != nullptr) {
    Enter(thread);
  } else if (!idle_.empty()) {
    worker = idle_.back();
    idle_.pop_back();
  } else {
    const StackSlot slot = {static_cast<int>(all_.size())};
    worker = new Worker();
    all_.push_back(worker);
    worker->stack_end = static_cast<const char*>(slot.allocate().sp);
    worker->stack = worker->stack_end - kStack;
    worker->fiber = boost::context::fiber(std::allocator_arg, slot, [this, worker](boost::context::fiber&& from) {
      scheduler_ = std::move(from);
      Work(worker);
      return boost::context::fiber();
    });
  }
  worker->fiber = std::move(worker->fiber).resume();
  running.kernel = false;
}

/// The current thread waits until another one, or the scheduler, releases it.
void Device::Wait() {
  running.kernel = false;
  scheduler_ = std::move(scheduler_).resume();
  running.kernel = true;
}

void Device::Arrive(const Site& site) {
  current().state = State::kAtBarrier;
  current().site = site;
  Wait();
}

bool SameSite(const Site& a, const Site& b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

void Device::ArriveAtShuffle() {
  Thread& now = current();
  const int warp = current_ / kWarp;
  const int lanes = std::min(kWarp, count_ - warp * kWarp);
  const unsigned there = lanes == kWarp ? ~0u : (1u << lanes) - 1;
  const unsigned own = 1u << (current_ % kWarp);
  const auto wrong = [&](const std::string& text) {
    Found("mask", std::string(now.site.file) + ":" + std::to_string(now.site.line) + ": " + now.site.name + text);
  };
  if (now.mask & ~there) { wrong(" names lanes that the block does not have"); }
  if (!(now.mask & own)) { wrong(" is called by a lane that its mask leaves out"); }
  now.mask = (now.mask & there) | own;
  now.state = State::kAtShuffle;
  bool all = true;
  for (int lane = 0; lane < lanes && all; ++lane) {
    if (!(now.mask >> lane & 1)) { continue; }
    const Thread& other = threads_[warp * kWarp + lane];
    all = other.state == State::kAtShuffle && other.mask == now.mask && SameSite(other.site, now.site);
  }
  if (all) { Complete(now.mask, warp); }
  Wait();
}

/// All lanes of the mask have arrived: give each its value.
void Device::Complete(const unsigned mask, const int warp) {
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!(mask >> lane & 1)) { continue; }
    Thread& to = threads_[warp * kWarp + lane];
    if (to.memory) {
      ++to.warp_epoch;
    } else {
      const int first = lane / to.width * to.width, end = first + to.width;
      int from = lane;
      switch (to.exchange) {
        case kIndex: from = first + (to.lane_or_distance & (to.width - 1)); break;
        case kUp: from = lane - to.lane_or_distance; break;
        case kDown: from = lane + to.lane_or_distance; break;
        case kXor: from = lane ^ to.lane_or_distance; break;
      }
      if (from < first || from >= end) { from = lane; }
      if (!(mask >> from & 1)) {
        Found("mask", std::string(to.site.file) + ":" + std::to_string(to.site.line) + ": " + to.site.name +
                          " reads from a lane that its mask leaves out");
        from = lane;
      }
      std::memcpy(to.result, threads_[warp * kWarp + from].value, to.size);
    }
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    if (mask >> lane & 1) { Release(warp * kWarp + lane); }
  }
}

/// No thread can go on: all wait. That is right where all of the block's threads wait at one barrier.
void Device::Untangle() {
  int at_barrier = -1, at_shuffle = -1, ended = 0, waiting = 0;
  bool one_site = true;
  for (int i = 0; i < count_; ++i) {
    const Thread& thread = threads_[i];
    if (thread.state == State::kAtBarrier) {
      one_site = one_site && (at_barrier < 0 || SameSite(threads_[at_barrier].site, thread.site));
      at_barrier = i;
      ++waiting;
    } else if (thread.state == State::kAtShuffle) {
      at_shuffle = i;
    } else {
      ++ended;
    }
  }
  if (at_shuffle >= 0) {
    const Site site = threads_[at_shuffle].site;
    Found("mask", std::string(site.file) + ":" + std::to_string(site.line) + ": " + site.name +
                      " waits for lanes of its mask that do not arrive");
    for (int i = 0; i < count_; ++i) {
      if (threads_[i].state != State::kAtShuffle) { continue; }
      if (!threads_[i].memory) { std::memcpy(threads_[i].result, threads_[i].value, threads_[i].size); }
      Release(i);
    }
    return;
  }
  if (waiting < count_ || !one_site) {
    const Site site = threads_[at_barrier].site;
    std::ostringstream text;
    text << site.file << ":" << site.line << ": of " << count_ << " threads of the block ";
    if (waiting < count_) {
      text << ended << " ended without reaching the barrier that " << waiting << " wait at";
    } else {
      text << "some wait at another barrier";
    }
    Found("barrier", text.str());
  }
  ++running.interval;
  for (int i = 0; i < count_; ++i) {
    if (threads_[i].state == State::kAtBarrier) { Release(i); }
  }
}

void* Device::SharedFor(const void* tag, const size_t size, const size_t alignment) {
  for (const SharedVariable& variable : shared_) {
    if (variable.tag == tag) { return shared_memory.base + variable.offset; }
  }
  const size_t offset = (shared_used_ + alignment - 1) / alignment * alignment;
  shared_used_ = (offset + size + kBetween + 3) / 4 * 4;
  shared_.push_back({tag, offset, size});
  size_t all = 0;
  for (const SharedVariable& variable : shared_) { all += variable.size; }
  if (all > kMostShared) { Found("shared", "a block has more than 48 KiB of shared memory"); }
  if (shared_used_ > shared_memory.size) { std::abort(); }
  Provide(shared_memory, shared_memory.base + offset, size);
  return shared_memory.base + offset;
}

void Device::ForgetShared() {
  for (const SharedVariable& variable : shared_) {
    Withdraw(shared_memory, shared_memory.base + variable.offset, variable.size);
  }
  shared_.clear();
  shared_used_ = 0;
}

bool IsPossible(const dim3& grid, const dim3& block) {
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z, threads = uint64_t(block.x) * block.y * block.z;
  return blocks > 0 && threads > 0 && threads <= kMostThreads && block.z <= 64 && grid.x <= 0x7fffffffu &&
         grid.y <= 65535 && grid.z <= 65535;
}

}  // namespace

uint32_t Random() {  // xorshift64*, Vigna (2016)
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return static_cast<uint32_t>(state * 0x2545f4914f6cdd1dull >> 32);
}

void SetSeed(const uint32_t seed) { state = uint64_t(seed) + 1; }

void Run(const Site& site, const dim3& grid, const dim3& block, void (*body)(const void*), const void* arguments,
         size_t size) {
  Opened open;
  CountLaunch();
  if (!IsPossible(grid, block)) {
    SetError(cudaErrorInvalidConfiguration);
    return;
  }
  if (uint64_t(grid.x) * grid.y * grid.z > kMostBlocks) {
    Found("blocks", std::string(site.name) + " is launched with more blocks than can be emulated");
    return;
  }
  if (stacks.base == nullptr) {
    stacks = {Reserve(kMostThreads * (kStack + kGuard), true), kMostThreads * (kStack + kGuard), nullptr};
    for (int i = 0; i < kMostThreads; ++i) { mprotect(stacks.base + i * (kStack + kGuard), kGuard, PROT_NONE); }
    const size_t room = 1 << 20;
    shared_memory = {Reserve(room, true), room, reinterpret_cast<Cell*>(Reserve(room / 4 * sizeof(Cell), true))};
  }
  running.launch = site;
  running.arguments = static_cast<const char*>(arguments);
  running.arguments_end = running.arguments + size;
  device().RunAll(grid, block, body, arguments);
  device().ForgetShared();
  running.launch = Site();
}

void* SharedMemory(const void* tag, const size_t size, const size_t alignment) {
  running.kernel = false;
  void* const at = device().SharedFor(tag, size, alignment);
  running.kernel = true;
  return at;
}

void Barrier(const Site& site) { device().Arrive(site); }

void Shuffle(const Site& site, const Exchange exchange, const unsigned mask, const int lane_or_distance,
             const int width, const void* value, void* result, const size_t size) {
  running.kernel = false;
  Thread& now = device().current();
  now.site = site;
  now.exchange = exchange;
  now.memory = false;
  now.mask = mask;
  now.lane_or_distance = lane_or_distance;
  now.width = width;
  now.size = size;
  now.result = result;
  std::memcpy(now.value, value, size);
  if (width < 1 || width > kWarp || (width & (width - 1)) != 0) {
    Found("mask", std::string(site.name) + ": a width must be a power of two up to 32");
    now.width = kWarp;
  }
  device().ArriveAtShuffle();
}

void WarpBarrier(const Site& site, const unsigned mask) {
  Thread& now = device().current();
  now.site = site;
  now.memory = true;
  now.mask = mask;
  device().ArriveAtShuffle();
}

}  // namespace emulator
