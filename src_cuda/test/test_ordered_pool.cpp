#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/util/ordered_pool.hpp"
#include "caffe/util/transform_rng.hpp"

namespace caffe {

namespace {

struct Number {
  int index = 0, square = 0;
};

}  // namespace

// Items come in the order they were fetched in, however long each takes.
TEST(OrderedPoolTest, TestOrder) {
  for (int threads : {1, 2, 5}) {
    for (int ahead : {1, 3, 16}) {
      int next = 0;
      std::atomic<int> working{0}, most{0};
      OrderedPool<Number> pool(
          threads, ahead, [&next](Number* item) { item->index = next++; },
          [&](Number* item) {
            const int now = ++working;
            for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {}
            std::this_thread::sleep_for(std::chrono::microseconds(TransformRng(item->index).Index(400)));
            item->square = item->index * item->index;
            --working;
          });
      for (int i = 0; i < 200; ++i) {
        Number* item = pool.Next();
        ASSERT_EQ(i, item->index);
        ASSERT_EQ(i * i, item->square);
        pool.Release();
      }
      EXPECT_LE(most, std::min(threads, ahead));
      EXPECT_GE(most, threads > 1 && ahead > 3 ? 2 : 1);
    }
  }
}

// No more items are made than the pool holds, until one is taken.
TEST(OrderedPoolTest, TestBound) {
  std::atomic<int> made{0};
  OrderedPool<Number> pool(3, 4, [](Number*) {}, [&made](Number*) { ++made; });
  for (int taken = 0; taken < 20; ++taken) {
    pool.Next();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_LE(made, taken + 4);
    pool.Release();
  }
}

}  // namespace caffe
