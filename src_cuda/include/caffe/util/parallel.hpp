#ifndef CAFFE_UTIL_PARALLEL_HPP_
#define CAFFE_UTIL_PARALLEL_HPP_

#include <functional>

namespace caffe {

/**
 * One pool of threads for all layers that run on the CPU.
 *
 * `ParallelFor(n, grain, body)` calls `body(begin, end)` on disjoint ranges that cover [0, n), each of about `grain`
 * items, and returns when all of them are done; which thread takes which range is not fixed, so a body writes only what
 * belongs to its range. The calling thread takes part. Called from inside a body, or while another thread is using the
 * pool, it runs the whole range on the calling thread: several solvers or data threads at once do not pile up threads.
 *
 * The number of threads is the number of processors that the process may use, or the environment variable
 * CAFFE_NUM_THREADS, else OMP_NUM_THREADS, else OPENBLAS_NUM_THREADS when one of them holds a positive number. A forked
 * child builds a pool of its own at its first call.
 */
int ParallelThreads();

/// Change the number of threads of later calls (at least 1). Not to be called from inside a body.
void SetParallelThreads(int threads);

void ParallelFor(int n, int grain, const std::function<void(int, int)>& body);

/// A grain that gives each thread a few ranges, so that uneven ones balance out, with `least` items a range at least.
int ParallelGrain(int n, int least);

}  // namespace caffe

#endif  // CAFFE_UTIL_PARALLEL_HPP_
