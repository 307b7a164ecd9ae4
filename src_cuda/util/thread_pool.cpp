#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "caffe/util/parallel.hpp"

namespace caffe {

namespace {

thread_local bool inside_body = false;

// How often a waiting thread checks before it sleeps: about 20 microseconds. The layers of a net follow each other in
// less than that, and waking a sleeping thread takes as long as a small layer.
constexpr int kSpins = 2000;

inline void Relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// One call of ParallelFor. Ranges are handed out by a counter.
struct Work {
  int n;
  int grain;
  const std::function<void(int, int)>* body;
  std::atomic<int> next{0};

  void Run() {
    inside_body = true;
    for (;;) {
      const int begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= n) { break; }
      (*body)(begin, n - begin < grain ? n : begin + grain);
    }
    inside_body = false;
  }
};

/// Workers that wait for the next Work. Only the thread that holds the pool's lock posts one.
class ThreadPool {
 public:
  explicit ThreadPool(int workers) {
    for (int i = 0; i < workers; ++i) {
      threads_.emplace_back([this] { Loop(); });
    }
  }

  ~ThreadPool() {
    stop_ = true;
    Announce();
    for (std::thread& thread : threads_) { thread.join(); }
  }

  void Run(Work* work) {
    work_ = work;
    open_.store(true);
    Announce();
    work->Run();
    // All ranges are taken. A worker that has not come yet (asleep, or its processor is busy) is not waited for: it
    // counts itself in before it reads open_, so it is either seen here or finds the work closed.
    open_.store(false);
    for (int spins = 0; inside_.load() > 0; ++spins) {
      if (spins < kSpins) {
        Relax();
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  void Announce() {
    // The counters are sequentially consistent: a worker counts itself as asleep before it reads the ticket.
    ticket_.fetch_add(1);
    if (sleeping_.load() > 0) {
      { std::lock_guard<std::mutex> lock(mutex_); }
      wake_.notify_all();
    }
  }

  void Loop() {
    unsigned seen = 0;
    for (;;) {
      for (int spins = 0; spins < kSpins && ticket_.load(std::memory_order_acquire) == seen; ++spins) { Relax(); }
      if (ticket_.load() == seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        sleeping_.fetch_add(1);
        wake_.wait(lock, [&] { return ticket_.load() != seen; });
        sleeping_.fetch_sub(1);
      }
      if (stop_) { return; }
      seen = ticket_.load();
      inside_.fetch_add(1);
      if (open_.load()) { work_->Run(); }
      inside_.fetch_sub(1);
    }
  }

  std::vector<std::thread> threads_;
  Work* work_ = nullptr;
  std::atomic<bool> open_{false};
  std::atomic<int> inside_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<unsigned> ticket_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

int PositiveNumberIn(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::max(0, std::atoi(text));
}

int DefaultThreads() {
  for (const char* name : {"CAFFE_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}) {
    if (const int asked = PositiveNumberIn(name)) { return std::min(asked, 1024); }
  }
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) { return std::max(1, CPU_COUNT(&allowed)); }
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

// Kept until the process ends: its threads may be in use while static objects are destroyed.
struct Shared {
  std::mutex in_use;
  std::unique_ptr<ThreadPool> pool;
  std::atomic<int> threads{DefaultThreads()};
};

Shared* shared = nullptr;
std::once_flag once;

// A forked child does not have the parent's workers, and the lock may have been held: both are abandoned.
void ForgetInChild() {
  Shared* made = new Shared;
  made->threads.store(shared->threads.load());
  shared = made;
}

Shared& SharedPool() {
  std::call_once(once, [] {
    shared = new Shared;
    pthread_atfork(nullptr, nullptr, ForgetInChild);
  });
  return *shared;
}

}  // namespace

int ParallelThreads() { return SharedPool().threads.load(); }

void SetParallelThreads(int threads) {
  Shared& all = SharedPool();
  std::lock_guard<std::mutex> lock(all.in_use);
  all.threads.store(std::max(1, threads));
  all.pool.reset();
}

void ParallelFor(int n, int grain, const std::function<void(int, int)>& body) {
  if (n <= 0) { return; }
  grain = std::max(1, grain);
  if (inside_body || n <= grain) {
    body(0, n);
    return;
  }
  Shared& all = SharedPool();
  std::unique_lock<std::mutex> lock(all.in_use, std::try_to_lock);
  if (!lock.owns_lock() || all.threads.load() == 1) {
    body(0, n);
    return;
  }
  if (!all.pool) { all.pool.reset(new ThreadPool(all.threads.load() - 1)); }
  Work work;
  work.n = n;
  work.grain = grain;
  work.body = &body;
  all.pool->Run(&work);
}

int ParallelGrain(int n, int least) {
  const int ranges = 4 * ParallelThreads();
  return std::max(std::max(1, least), (n + ranges - 1) / ranges);
}

}  // namespace caffe
