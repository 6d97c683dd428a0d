#pragma once

#include <memory>
#include <thread>
#include <type_traits>

#include "tilegrad/base/index.h"

/// The only place that owns threads.
namespace tilegrad::kernels {

/// Number of threads that kernels use; at first OMP_NUM_THREADS or, without it, the number of processors that this
/// process may use, as bounded by its affinity mask and the quota of its container.
int threads();
/// May be called while other threads compute: what has begun goes on with as many threads as before.
void set_threads(int count);

/// While it lives, kernels use `count` threads; then as many as before.
class ThreadScope {
 public:
  explicit ThreadScope(int count) : outer_(threads()) { set_threads(count); }
  ~ThreadScope() { set_threads(outer_); }
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;

 private:
  int outer_;
};

/// While it lives, OpenMP code that this thread calls (OpenBLAS's OpenMP build) starts no threads of its own.
class SingleThreaded {
 public:
  SingleThreaded();
  ~SingleThreaded();
  SingleThreaded(const SingleThreaded&) = delete;
  SingleThreaded& operator=(const SingleThreaded&) = delete;

 private:
  int outer_;
};

/// Threads that belong to somebody else, for a process that already has a team: two teams on the same processors get in
/// each other's way, most of all if idle threads of the other one poll for work instead of sleeping.
struct Runner {
  /// How many threads run() would use, at most, if the calling thread called it.
  int (*threads)();
  /// Calls share(context, thread) on up to `team` threads, each with a number of its own in [0, team), and returns
  /// when all calls have returned. A single call would be enough: each takes tasks until there are none left.
  void (*run)(int team, void (*share)(void* context, int thread), void* context);
};
/// From now on tasks run on the runner's threads, if it is not null, else on the project's own. It must live as long
/// as the process. A child process made by fork, which inherits no threads, has no runner.
void set_runner(const Runner* runner);

namespace detail {
using TaskFunction = void (*)(void* context, Index task, int thread);
void run_tasks(Index tasks, int team, TaskFunction function, void* context);
}  // namespace detail

/// Calls f(task, thread) once for every task in [0, tasks), on up to `team` threads; thread is in [0, team).
/// Tasks are handed out in order, one at a time, to whichever thread is free. What a task computes must not
/// depend on its thread (which only picks scratch memory): then the result has the same bits for every number
/// of threads. Whoever allocates scratch memory for a team passes the size of that team, since threads() may have
/// changed in the meantime (see Workspace). Nested calls, and those of a second caller while a first one is at work,
/// run on the calling thread alone. `f` must not throw.
template <class F>
void parallel_tasks(Index tasks, F&& f, int team = threads()) {
  using Fn = std::remove_reference_t<F>;
  detail::run_tasks(
      tasks, team, [](void* context, Index task, int thread) { (*static_cast<Fn*>(context))(task, thread); },
      const_cast<void*>(static_cast<const void*>(std::addressof(f))));
}

/// Calls f(begin, end) on consecutive pieces of [0, n), each of `grain` elements except the last. The pieces
/// depend on n and grain alone, never on the number of threads.
template <class F>
void parallel_for(Index n, Index grain, F&& f) {
  const Index pieces = (n + grain - 1) / grain;
  parallel_tasks(pieces, [&](Index piece, int) {
    const Index begin = piece * grain;
    f(begin, begin + grain < n ? begin + grain : n);
  });
}

/// Returns when done() holds. For a task that waits for what tasks handed out before it are about to finish, which takes
/// microseconds: it polls, and gives way to others if it takes longer.
template <class Done>
void spin_until(Done&& done) {
  constexpr int kPatience = 1000;
  for (int i = 0; !done(); ++i) {
    if (i > kPatience) std::this_thread::yield();
  }
}

}  // namespace tilegrad::kernels
