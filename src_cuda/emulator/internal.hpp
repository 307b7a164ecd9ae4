// What the parts of the emulator share.
#ifndef SSDLITE_CAFFE_EMULATOR_INTERNAL_HPP_
#define SSDLITE_CAFFE_EMULATOR_INTERNAL_HPP_

#include <mutex>
#include <string>

#include "cuda_runtime.h"
#include "device.hpp"
#include "emulator.hpp"

namespace emulator {

/// Which thread touched memory, and when. An interval ends at a barrier of the block, and with the block itself.
struct Access {
  uint32_t interval;
  uint16_t thread, warp_epoch;  // warp_epoch counts the barriers of the thread's warp
};

/// What is known of four bytes of the device's memory.
struct Cell {
  Access write, read;  // the last ones
  uint8_t valid;       // of the four bytes, how many belong to an allocation
  uint8_t written;     // a bit for each byte that was written
  bool more_readers;   // another thread than read.thread has read since, with no barrier between
};

struct Region {
  char* base;
  size_t size;
  Cell* cells;

  bool Holds(const void* at) const { return static_cast<size_t>(static_cast<const char*>(at) - base) < size; }
  Cell* At(const void* at) const { return cells + (static_cast<const char*>(at) - base) / 4; }
};
extern Region global_memory, shared_memory, stacks;

/// What runs on the device now.
struct Running {
  bool kernel;  // whether a thread of the device runs, and not the emulator or the host
  Site launch;  // of the kernel or the call
  uint32_t interval, first_of_block, first_of_launch;
  uint16_t thread, warp_epoch;
  const char *stack, *stack_end;
  const char *arguments, *arguments_end;
};
extern Running running;

/// Keeps the device's memory open to this process; else a touch by the host ends it. One at a time.
class Opened {
 public:
  Opened();
  ~Opened();

 private:
  std::unique_lock<std::recursive_mutex> lock_;
};

/// Takes note of a mistake. `pc` is the place in the kernel's code, or null.
void Found(const std::string& kind, const std::string& text, const void* pc = nullptr);

/// Where an address lies, in words: "byte 64 of an allocation of 64".
std::string Place(const void* at);

/// The host, or a library on the device, reads or writes a range of the device's memory.
void ReadRange(const char* what, const void* at, size_t size);
void WriteRange(const char* what, const void* at, size_t size);

/// Makes bytes part of an allocation, unwritten and with values that are not numbers.
void Provide(const Region& region, void* at, size_t size);
/// Makes them part of none.
void Withdraw(const Region& region, const void* at, size_t size);

void SetError(cudaError_t error);
void CountLaunch();
void CountToHost(size_t size);
uint32_t Random();

/// Reserves address space that takes memory only where it is used.
char* Reserve(size_t size, bool open);

}  // namespace emulator

#endif  // SSDLITE_CAFFE_EMULATOR_INTERNAL_HPP_
