#ifndef CAFFE_UTIL_ORDERED_POOL_HPP_
#define CAFFE_UTIL_ORDERED_POOL_HPP_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace caffe {

/**
 * @brief Threads that prepare a sequence of items ahead of their use.
 *
 * fetch(item) is called for one item after the other, in order and never by two threads at once; work(item) by several
 * threads at once; Next() gives the items in the order in which they were fetched. Items are reused, so that what they
 * hold (buffers) is allocated once.
 */
template <typename Item>
class OrderedPool {
 public:
  using Step = std::function<void(Item*)>;

  OrderedPool(int threads, int ahead, Step fetch, Step work) : fetch_(fetch), work_(work), slots_(ahead) {
    for (int i = 0; i < threads; ++i) { threads_.emplace_back(&OrderedPool::Run, this); }
  }

  ~OrderedPool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    space_.notify_all();
    for (std::thread& thread : threads_) { thread.join(); }
  }

  OrderedPool(const OrderedPool&) = delete;
  OrderedPool& operator=(const OrderedPool&) = delete;

  // The next item, once it is done. It stays valid until Release(), which comes before the next Next().
  Item* Next() {
    std::unique_lock<std::mutex> lock(mutex_);
    Slot& slot = slots_[taken_ % slots_.size()];
    ready_.wait(lock, [&slot] { return slot.ready; });
    return &slot.item;
  }

  void Release() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      slots_[taken_++ % slots_.size()].ready = false;
    }
    space_.notify_one();
  }

 private:
  struct Slot {
    Item item;
    bool ready = false;
  };

  void Run() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      space_.wait(lock, [this] { return stop_ || fetched_ < taken_ + slots_.size(); });
      if (stop_) { return; }
      Slot& slot = slots_[fetched_++ % slots_.size()];
      fetch_(&slot.item);
      lock.unlock();
      work_(&slot.item);
      lock.lock();
      slot.ready = true;
      ready_.notify_one();
    }
  }

  const Step fetch_, work_;
  std::vector<Slot> slots_;
  uint64_t fetched_ = 0, taken_ = 0;
  bool stop_ = false;
  std::mutex mutex_;
  std::condition_variable space_, ready_;
  std::vector<std::thread> threads_;
};

}  // namespace caffe

#endif  // CAFFE_UTIL_ORDERED_POOL_HPP_
