#ifndef CAFFE_SYNCEDMEM_HPP_
#define CAFFE_SYNCEDMEM_HPP_

#include <atomic>
#include <cstdlib>

#include "caffe/common.hpp"

namespace caffe {

/// Memory of the host: pinned in GPU mode, so that copies to and from the device are fast.
void CaffeMallocHost(void** ptr, size_t size, bool* use_cuda);
void CaffeFreeHost(void* ptr, bool use_cuda);

/// Values that are computed, or held in another order, and written only if somebody reads them.
class DeferredValues {
 public:
  virtual ~DeferredValues() {}
  /// Write all of them, in the order of a blob.
  virtual void WriteTo(void* values) const = 0;
};

/**
 * @brief Memory of a blob on the host and on a device, copied from where it was written to where it is read.
 *
 * The interface is the fork's, with one thing more: a whole forward pass on the CPU (util/net_forward.cpp) keeps values
 * in an order of its own and gives them with `Defer`. They are written in a blob's order when somebody asks for them,
 * by any of the functions that give a pointer or say where the values are; several threads may ask at once. A pointer
 * that was given outside such a pass, or to a layer that it does not know, may be kept and read later: what it points
 * to is written in each pass (`WriteIfExposed`). Whoever computes from `deferred` values, or from a copy of values of
 * another time, must ask whether others are there by now: `writes` counts those that were given since, and where the
 * memory is `writable_elsewhere`, there may be others at any time.
 */
class SyncedMemory {
 public:
  SyncedMemory() : SyncedMemory(0) {}
  explicit SyncedMemory(size_t size)
      : cpu_ptr_(nullptr),
        gpu_ptr_(nullptr),
        size_(size),
        head_(UNINITIALIZED),
        own_cpu_data_(false),
        cpu_malloc_use_cuda_(false),
        own_gpu_data_(false),
        gpu_device_(-1),
        written_(true),
        exposed_(false),
        writes_(0),
        writable_elsewhere_(false) {}
  ~SyncedMemory();
  const void* cpu_data();
  void set_cpu_data(void* data);
  const void* gpu_data();
  void set_gpu_data(void* data);
  void* mutable_cpu_data();
  void* mutable_gpu_data();
  enum SyncedHead { UNINITIALIZED, HEAD_AT_CPU, HEAD_AT_GPU, SYNCED };
  SyncedHead head() {
    WriteDeferred();
    return head_;
  }
  size_t size() { return size_; }

  /// From now on the values are these. written: they are the ones here as well, in a blob's order.
  void Defer(const shared_ptr<DeferredValues>& values, bool written = false) {
    deferred_ = values;
    written_ = written;
    if (!written) { ++writes_; }
  }
  /// The values given to Defer are no longer needed: others will be given before somebody asks.
  void Drop() { Defer(nullptr, true); }
  /// The values given to Defer; null once somebody may have written others here.
  const shared_ptr<DeferredValues>& deferred() const { return deferred_; }
  /// Whether a pointer was given that its holder may have kept.
  bool exposed() const { return exposed_.load(std::memory_order_relaxed); }
  /// How often a pointer to write with, or other values, were given.
  unsigned long long writes() const { return writes_; }
  /// Whether such a pointer was given that its holder may have kept: the values may change at any time.
  bool writable_elsewhere() const { return writable_elsewhere_; }
  /// Once the deferred values have been computed.
  void WriteIfExposed() {
    if (exposed()) { WriteDeferred(); }
  }
  /// While one of these exists, the pointers that the calling thread gets are not kept.
  class Passing {
   public:
    Passing();
    ~Passing();
  };

#ifndef CPU_ONLY
  void async_gpu_push(const cudaStream_t& stream);
#endif

 private:
  void WriteDeferred();
  void Expose();
  void Written();
  void to_cpu();
  void to_gpu();
  void FreeCpu();
#ifndef CPU_ONLY
  void MallocGpu();
  void FreeGpu();
#endif

  void* cpu_ptr_;
  void* gpu_ptr_;
  size_t size_;
  SyncedHead head_;
  bool own_cpu_data_;
  bool cpu_malloc_use_cuda_;
  bool own_gpu_data_;
  int gpu_device_;
  shared_ptr<DeferredValues> deferred_;
  std::atomic<bool> written_;  // the deferred values are here too
  std::atomic<bool> exposed_;
  unsigned long long writes_;
  bool writable_elsewhere_;

  DISABLE_COPY_AND_ASSIGN(SyncedMemory);
};

}  // namespace caffe

#endif  // CAFFE_SYNCEDMEM_HPP_
