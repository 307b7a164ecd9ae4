// Every read and write of a kernel. The compiler puts calls before them with -fsanitize=thread, as for ThreadSanitizer;
// the functions called are these here, and not that library's.
#define BOOST_STACKTRACE_USE_ADDR2LINE
#include <link.h>

#include <algorithm>
#include <boost/stacktrace/frame.hpp>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <sstream>
#include <vector>

#include "internal.hpp"

namespace emulator {

namespace {

std::vector<Finding> findings;
std::set<std::string> seen;

/// Parts of the program that cannot be written: a kernel's constants lie there.
const std::vector<std::pair<const char*, const char*>>& Constants() {
  static const auto ranges = [] {
    std::vector<std::pair<const char*, const char*>> found;
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* to) {
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            const ElfW(Phdr) & part = info->dlpi_phdr[i];
            const char* const from = reinterpret_cast<const char*>(info->dlpi_addr + part.p_vaddr);
            if ((part.p_type == PT_LOAD && !(part.p_flags & PF_W)) || part.p_type == PT_GNU_RELRO) {
              static_cast<decltype(found)*>(to)->emplace_back(from, from + part.p_memsz);
            }
          }
          return 0;
        },
        &found);
    return found;
  }();
  return ranges;
}

std::string Who() {
  std::ostringstream text;
  const Builtins& b = builtins;
  text << "thread (" << b.thread_index.x << ", " << b.thread_index.y << ", " << b.thread_index.z << ") of block ("
       << b.block_index.x << ", " << b.block_index.y << ", " << b.block_index.z << ")";
  return text.str();
}

/// Whether what happened then is over for the running thread.
bool IsOver(const Access& then) {
  const Running& now = running;
  if (then.interval < now.first_of_launch) { return true; }
  if (then.interval < now.first_of_block) { return false; }  // another block
  if (then.interval < now.interval || then.thread == now.thread) { return true; }
  return then.thread / 32 == now.thread / 32 && then.warp_epoch != now.warp_epoch;
}

void FoundRace(const void* at, const char* now, const char* then, const Access& other, const void* pc) {
  std::ostringstream text;
  text << Who() << " " << now << " what ";
  if (other.interval < running.first_of_block) {
    text << "another block " << then << " in the same launch";
  } else {
    text << "thread " << other.thread << " of its block " << then << " since the last barrier";
  }
  text << ": " << Place(at);
  Found("race", text.str(), pc);
}

void CheckCells(const Region& region, const char* at, const size_t size, const bool write, const void* pc) {
  const char* const verb = write ? "writes" : "reads";
  Running& now = running;
  const Access me = {now.interval, now.thread, now.warp_epoch};
  for (size_t done = 0; done < size;) {
    const unsigned first = reinterpret_cast<uintptr_t>(at + done) % 4;
    const unsigned bytes = static_cast<unsigned>(std::min<size_t>(4 - first, size - done));
    Cell& cell = *region.At(at + done);
    if (first + bytes > cell.valid) {
      std::ostringstream text;
      text << Who() << " " << verb << " " << size << " bytes at " << Place(at + done);
      Found("out of bounds", text.str(), pc);
      return;
    }
    const uint8_t mask = ((1u << bytes) - 1) << first;
    // Races between parts of a cell are not told apart, so there they are not looked for.
    const bool whole = bytes == 4;
    if (whole && !IsOver(cell.write)) { FoundRace(at + done, verb, "writes", cell.write, pc); }
    if (write) {
      if (whole &&
          (!IsOver(cell.read) || (cell.more_readers && cell.read.interval >= now.first_of_launch &&
                                  (cell.read.interval == now.interval || cell.read.interval < now.first_of_block)))) {
        FoundRace(at + done, "writes", "reads", cell.read, pc);
      }
      cell.write = me;
      cell.written |= mask;
    } else {
      if ((cell.written & mask) != mask) {
        Found("unwritten", Who() + " reads what nobody wrote: " + Place(at + done), pc);
        cell.written |= mask;  // told once
      }
      cell.more_readers = !IsOver(cell.read);
      cell.read = me;
    }
    done += bytes;
  }
}

__attribute__((noinline)) void CheckElsewhere(const char* at, const size_t size, const bool write, const void* pc) {
  if (at >= running.arguments && at + size <= running.arguments_end && !write) { return; }
  const char* const own = reinterpret_cast<const char*>(&builtins);
  if (at >= own && at < own + sizeof(builtins) && !write) { return; }
  if (!write) {
    for (const auto& range : Constants()) {
      if (at >= range.first && at + size <= range.second) { return; }
    }
  }
  Found("out of bounds", Who() + (write ? " writes to " : " reads from ") + Place(at), pc);
}

inline void Check(const void* address, const size_t size, const bool write, const void* pc) {
  if (!running.kernel) { return; }  // the host's own code in a .cu
  const char* const at = static_cast<const char*>(address);
  if (at >= running.stack && at < running.stack_end) { return; }
  running.kernel = false;  // what is called from here is the emulator's
  if (global_memory.Holds(at)) {
    CheckCells(global_memory, at, size, write, pc);
  } else if (shared_memory.Holds(at)) {
    CheckCells(shared_memory, at, size, write, pc);
  } else {
    CheckElsewhere(at, size, write, pc);
  }
  running.kernel = true;
}

void CheckAligned(const void* at, const size_t size, const bool write, const void* pc) {
  if (running.kernel && reinterpret_cast<uintptr_t>(at) % size != 0 &&
      (global_memory.Holds(at) || shared_memory.Holds(at))) {
    Found("misaligned", Who() + " needs an aligned address: " + Place(at), pc);
  }
  Check(at, size, write, pc);
}

}  // namespace

void Found(const std::string& kind, const std::string& text, const void* pc) {
  std::string line = text;
  std::ostringstream key;
  key << kind << running.launch.file << running.launch.line << pc;
  if (pc == nullptr) { key << text; }
  if (!seen.insert(key.str()).second) { return; }
  const bool was = running.kernel;
  running.kernel = false;
  if (pc != nullptr) {
    const boost::stacktrace::frame frame(static_cast<const char*>(pc) - 1);
    if (frame.source_line() != 0) {
      line = frame.source_file() + ":" + std::to_string(frame.source_line()) + ": " + line;
    }
  }
  if (running.launch.name != nullptr) { line = std::string(running.launch.name) + ": " + line; }
  std::fprintf(stderr, "emulator: %s: %s\n", kind.c_str(), line.c_str());
  static const bool stops = std::getenv("EMULATOR_STOP") != nullptr;
  if (stops) { std::_Exit(3); }
  findings.push_back({kind, line});
  running.kernel = was;
}

std::vector<Finding> TakeFindings() {
  seen.clear();
  return std::exchange(findings, {});
}

}  // namespace emulator

// ---- the names that the compiler calls
#define PC __builtin_return_address(0)
#define ACCESS(size)                                                                                \
  void __tsan_read##size(void* at) { emulator::CheckAligned(at, size, false, PC); }                 \
  void __tsan_write##size(void* at) { emulator::CheckAligned(at, size, true, PC); }                 \
  void __tsan_unaligned_read##size(const void* at) { emulator::CheckAligned(at, size, false, PC); } \
  void __tsan_unaligned_write##size(void* at) { emulator::CheckAligned(at, size, true, PC); }
#define ATOMIC(bits, T)                                                                                             \
  T __tsan_atomic##bits##_load(const volatile T* at, int) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }         \
  void __tsan_atomic##bits##_store(volatile T* at, T value, int) { __atomic_store_n(at, value, __ATOMIC_SEQ_CST); } \
  T __tsan_atomic##bits##_exchange(volatile T* at, T value, int) {                                                  \
    return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);                                                        \
  }                                                                                                                 \
  T __tsan_atomic##bits##_fetch_add(volatile T* at, T value, int) {                                                 \
    return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);                                                         \
  }                                                                                                                 \
  T __tsan_atomic##bits##_fetch_sub(volatile T* at, T value, int) {                                                 \
    return __atomic_fetch_sub(at, value, __ATOMIC_SEQ_CST);                                                         \
  }                                                                                                                 \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* at, T* expected, T value, int, int) {               \
    return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);             \
  }                                                                                                                 \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile T* at, T* expected, T value, int, int) {                 \
    return __atomic_compare_exchange_n(at, expected, value, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);              \
  }

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(void* at, size_t size) { emulator::Check(at, size, false, PC); }
void __tsan_write_range(void* at, size_t size) { emulator::Check(at, size, true, PC); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
ATOMIC(8, char)
ATOMIC(32, int)
ATOMIC(64, long)  // NOLINT(runtime/int)

// The undefined behaviour that -fsanitize finds in a kernel: an index beyond an array of the thread's own, an overflow.
void __ubsan_get_current_report_data(const char** kind, const char** message, const char** file, unsigned* line,
                                     unsigned* column, char** address);
void __ubsan_on_report() {
  const char *kind, *message, *file;
  unsigned line, column;
  char* address;
  __ubsan_get_current_report_data(&kind, &message, &file, &line, &column, &address);
  emulator::Found("undefined", std::string(file) + ":" + std::to_string(line) + ": " + message);
}
}
