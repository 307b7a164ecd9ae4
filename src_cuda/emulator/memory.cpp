// The device's memory: one range of addresses, closed to the host, with a record of each four bytes beside it.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>

#include "internal.hpp"

namespace emulator {

namespace {

constexpr size_t kReserved = size_t(4) << 30;
constexpr size_t kBetween = 256;  // bytes that belong to nobody, after each allocation

struct Allocation {
  size_t size;
  bool fresh;  // nothing has been done with it
};

std::recursive_mutex mutex;
std::map<char*, Allocation> allocations;
size_t limit = size_t(1) << 18;  // memory is used up to here; it grows when no gap is found
size_t cursor = 0;               // the next allocation is looked for from here, so that freed memory rests for a while
int opened = 0;
bool zeros_count = false;
cudaError_t last_error = cudaSuccess;
Copies copies;
struct sigaction before;

void OnFault(int number, siginfo_t* info, void* context) {
  // What is called here may not be called in a handler; the process ends anyhow.
  if (running.kernel) {
    std::fprintf(stderr, "emulator: %s touches %p, which is no memory\n", running.launch.name, info->si_addr);
  } else if (global_memory.Holds(info->si_addr)) {
    std::fprintf(stderr, "emulator: the host touches the device's memory: %s\n", Place(info->si_addr).c_str());
  }
  sigaction(number, &before, nullptr);  // returning runs the same instruction again, for the handler before
}

/// Whether the host is kept from device memory, which takes two system calls for each launch and copy.
bool Protects() {
  static const bool protects = [] {
    const char* const asked = std::getenv("EMULATOR_PROTECT");
    return asked == nullptr || std::strcmp(asked, "0") != 0;
  }();
  return protects;
}

void Protect(const int rights) {
  if (Protects()) { mprotect(global_memory.base, limit, rights); }
}

void Start() {
  static const bool started = [] {
    global_memory = {Reserve(kReserved, !Protects()), kReserved,
                     reinterpret_cast<Cell*>(Reserve(kReserved / 4 * sizeof(Cell), true))};
    struct sigaction action = {};
    action.sa_sigaction = OnFault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, &before);
    return true;
  }();
  static_cast<void>(started);
}

size_t Footprint(size_t size) { return (size + kBetween + 255) / 256 * 256; }

/// A gap for `size` bytes from `from` on, or null.
char* Gap(size_t from, size_t size) {
  char* at = global_memory.base + from;
  auto next = allocations.lower_bound(at);
  if (next != allocations.begin()) {
    const auto previous = std::prev(next);
    at = std::max(at, previous->first + Footprint(previous->second.size));
  }
  for (;; ++next) {
    char* const end = next == allocations.end() ? global_memory.base + limit : next->first;
    if (at + Footprint(size) <= end) { return at; }
    if (next == allocations.end()) { return nullptr; }
    at = next->first + Footprint(next->second.size);
  }
}

std::map<char*, Allocation>::iterator Find(const void* at) {
  auto found = allocations.upper_bound(const_cast<char*>(static_cast<const char*>(at)));
  if (found == allocations.begin()) { return allocations.end(); }
  return std::prev(found);
}

bool Check(const char* what, const char* verb, const void* at, size_t size) {
  const auto found = Find(at);
  const char* const from = static_cast<const char*>(at);
  if (found != allocations.end() && from + size <= found->first + found->second.size) { return true; }
  std::ostringstream text;
  text << what << " " << verb << " " << size << " bytes at " << Place(at);
  Found("out of bounds", text.str());
  return false;
}

}  // namespace

Region global_memory, shared_memory, stacks;
Running running;

char* Reserve(size_t size, bool open) {
  void* const at = mmap(nullptr, size, open ? PROT_READ | PROT_WRITE : PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    std::perror("emulator: no address space");
    std::abort();
  }
  return static_cast<char*>(at);
}

Opened::Opened() : lock_(mutex) {
  Start();
  if (opened++ == 0) { Protect(PROT_READ | PROT_WRITE); }
}

Opened::~Opened() {
  if (--opened == 0) { Protect(PROT_NONE); }
}

std::string Place(const void* at) {
  std::ostringstream text;
  if (global_memory.Holds(at)) {
    const auto found = Find(at);
    if (found == allocations.end()) { return "device memory before every allocation"; }
    text << "byte " << static_cast<const char*>(at) - found->first << " of an allocation of " << found->second.size;
  } else if (shared_memory.Holds(at)) {
    text << "byte " << static_cast<const char*>(at) - shared_memory.base << " of the block's shared memory";
  } else if (stacks.Holds(at)) {
    text << "another thread's own memory";
  } else {
    text << "the host's memory, " << at;
  }
  return text.str();
}

void Provide(const Region& region, void* at, size_t size) {
  std::memset(at, 0xff, size);
  Cell* cell = region.At(at);
  for (size_t i = 0; i < size; i += 4, ++cell) {
    *cell = Cell();
    cell->valid = static_cast<uint8_t>(std::min<size_t>(4, size - i));
  }
}

void Withdraw(const Region& region, const void* at, size_t size) {
  std::fill(region.At(at), region.At(at) + (size + 3) / 4, Cell());
}

void ReadRange(const char* what, const void* at, size_t size) {
  if (size == 0 || !Check(what, "reads", at, size)) { return; }
  const char* const from = static_cast<const char*>(at);
  for (size_t i = 0; i < size; ++i) {
    if (!(global_memory.At(from + i)->written >> (reinterpret_cast<uintptr_t>(from + i) % 4) & 1)) {
      Found("unwritten", std::string(what) + " reads what nobody wrote: " + Place(from + i));
      return;
    }
    // Whole cells at a time.
    if (reinterpret_cast<uintptr_t>(from + i) % 4 == 0 && i + 4 <= size && global_memory.At(from + i)->written == 15) {
      i += 3;
    }
  }
}

void WriteRange(const char* what, const void* at, size_t size) {
  if (size == 0 || !Check(what, "writes", at, size)) { return; }
  const char* const from = static_cast<const char*>(at);
  for (size_t i = 0; i < size; ++i) {
    global_memory.At(from + i)->written |= 1 << (reinterpret_cast<uintptr_t>(from + i) % 4);
  }
}

void SetError(cudaError_t error) { last_error = error; }
void CountLaunch() { ++copies.launches; }
void CountToHost(size_t size) { copies.to_host.push_back(size); }
void CountZeros(const bool count) { zeros_count = count; }
const Copies& AllCopies() { return copies; }

}  // namespace emulator

using emulator::allocations;
using emulator::copies;
using emulator::global_memory;

cudaError_t cudaMalloc(void** at, size_t size) {
  emulator::Opened open;
  *at = nullptr;
  if (size == 0) { return cudaSuccess; }
  char* place = emulator::Gap(emulator::cursor, size);
  if (place == nullptr) { place = emulator::Gap(0, size); }
  if (place == nullptr) {
    while (emulator::limit < global_memory.size && place == nullptr) {
      emulator::limit *= 2;
      place = emulator::Gap(emulator::cursor, size);
    }
    if (place == nullptr) { return cudaErrorMemoryAllocation; }
    emulator::Protect(PROT_READ | PROT_WRITE);
  }
  allocations[place] = {size, true};
  emulator::Provide(global_memory, place, size);
  emulator::cursor = place - global_memory.base + emulator::Footprint(size);
  *at = place;
  return cudaSuccess;
}

cudaError_t cudaFree(void* at) {
  if (at == nullptr) { return cudaSuccess; }
  emulator::Opened open;
  const auto found = allocations.find(static_cast<char*>(at));
  if (found == allocations.end()) {
    emulator::Found("out of bounds", "cudaFree is given what cudaMalloc did not: " + emulator::Place(at));
    return cudaErrorInvalidValue;
  }
  emulator::Withdraw(global_memory, at, found->second.size);
  allocations.erase(found);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** at, size_t size) {
  *at = std::malloc(size);
  return *at != nullptr || size == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void* at) {
  std::free(at);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind) {
  emulator::Opened open;
  const bool to_device = global_memory.Holds(to), from_device = global_memory.Holds(from);
  if (size == 0) { return cudaSuccess; }
  if (to_device && from_device) {
    ++copies.within_device;
    if (!emulator::Check("cudaMemcpy", "reads", from, size) || !emulator::Check("cudaMemcpy", "writes", to, size)) {
      return cudaErrorInvalidValue;
    }
    // What was unwritten stays so.
    for (size_t i = 0; i < size; i += 4) {
      const char* const at = static_cast<const char*>(from) + i;
      global_memory.At(static_cast<char*>(to) + i)->written = global_memory.At(at)->written;
    }
  } else if (to_device) {
    copies.to_device.push_back(size);
    emulator::WriteRange("cudaMemcpy", to, size);
  } else if (from_device) {
    copies.to_host.push_back(size);
    emulator::ReadRange("cudaMemcpy to the host", from, size);
  }
  std::memmove(to, from, size);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t) {
  return cudaMemcpy(to, from, size, kind);
}

cudaError_t cudaMemset(void* at, int value, size_t size) {
  emulator::Opened open;
  if (!emulator::Check("cudaMemset", "writes", at, size)) { return cudaErrorInvalidValue; }
  const auto found = emulator::Find(at);
  // Caffe's SyncedMemory sets all memory to zero before a layer sees it. A kernel that reads such zeros reads what no
  // layer wrote, which the emulator is to find: this first memset does not count as writing.
  const bool by_caffe = found->second.fresh && found->first == at && found->second.size == size && value == 0;
  found->second.fresh = false;
  if (!by_caffe || emulator::zeros_count) { emulator::WriteRange("cudaMemset", at, size); }
  std::memset(at, value, size);
  return cudaSuccess;
}

cudaError_t cudaPeekAtLastError() { return emulator::last_error; }
cudaError_t cudaGetLastError() { return std::exchange(emulator::last_error, cudaSuccess); }

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
  }
  return "unknown error";
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  *properties = cudaDeviceProp();
  std::snprintf(properties->name, sizeof(properties->name), "emulator");
  return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

struct EmulatedEvent {
  std::chrono::steady_clock::time_point at;
};

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new EmulatedEvent();
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->at = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  *milliseconds = std::chrono::duration<float, std::milli>(to->at - from->at).count();
  return cudaSuccess;
}
