#include "tilegrad/kernels/parallel.h"

#include <hwy/cache_control.h>
#include <omp.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "tilegrad/base/control_group.h"

namespace tilegrad::kernels {

namespace {

// Idle threads look for the next job about ten microseconds without a call of the system, since the jobs of a training
// step follow each other within microseconds. Then they give way to others, and then they sleep.
constexpr int kPolls = 400;
constexpr auto kPatience = std::chrono::microseconds(50);

/// Waits until done() holds: polls, then yields, then sleeps in block().
template <class Done, class Block>
void wait_until(Done&& done, Block&& block) {
  for (int i = 0; i < kPolls; ++i) {
    if (done()) return;
    hwy::Pause();
  }
  const auto start = std::chrono::steady_clock::now();
  while (!done()) {
    if (std::chrono::steady_clock::now() - start < kPatience) {
      std::this_thread::yield();  // in favour of whoever shares this processor
    } else {
      block();
    }
  }
}

/// Threads that help the caller with its tasks.
///
/// The caller never waits for a helper to begin, only for those that have begun: if the system is busy and a
/// helper wakes up late, others have done its share. (OpenMP's teams meet at a barrier at the end of each
/// region, which costs a time slice whenever another process holds a processor.)
class Pool {
 public:
  /// Runs all tasks on at most `team` threads, the caller being number 0.
  void run(int team, Index tasks, detail::TaskFunction function, void* context) {
    grow(team - 1);
    {
      const std::lock_guard lock(mutex_);
      function_ = function;
      context_ = context;
      tasks_ = tasks;
      team_ = team;
      next_.store(0, std::memory_order_relaxed);
      open_ = true;
    }
    jobs_.fetch_add(1, std::memory_order_release);
    jobs_.notify_all();
    work(0);
    {
      const std::lock_guard lock(mutex_);
      open_ = false;  // a helper that has not begun by now is too late
    }
    wait_until([&] { return helping_.load(std::memory_order_acquire) == 0; },
               [&] {
                 const int helping = helping_.load(std::memory_order_acquire);
                 if (helping != 0) helping_.wait(helping);
               });
  }

  std::mutex& caller() { return caller_; }

 private:
  void grow(int helpers) {
    while (static_cast<int>(helpers_.size()) < helpers) {
      const int number = static_cast<int>(helpers_.size()) + 1;
      try {
        helpers_.emplace_back([this, number] { help(number); });
      } catch (const std::system_error&) {
        return;  // the system gives us no more threads: those that we have do the work
      }
    }
  }

  [[noreturn]] void help(int number);

  void work(int thread) {
    for (Index task = next_.fetch_add(1, std::memory_order_relaxed); task < tasks_;
         task = next_.fetch_add(1, std::memory_order_relaxed)) {
      function_(context_, task, thread);
    }
  }

  std::mutex caller_;  // held by whoever runs a job

  std::mutex mutex_;  // guards the job while helpers join it
  detail::TaskFunction function_ = nullptr;
  void* context_ = nullptr;
  Index tasks_ = 0;
  int team_ = 0;
  bool open_ = false;

  std::atomic<Index> next_ = 0;          // the first task that nobody has taken
  std::atomic<int> helping_ = 0;         // helpers inside the job
  std::atomic<std::uint32_t> jobs_ = 0;  // number of jobs so far; helpers wait for it to change
  std::vector<std::thread> helpers_;     // never joined: they live as long as the process
};

thread_local bool inside_task = false;

void Pool::help(int number) {
  inside_task = true;
  for (std::uint32_t seen = 0;;) {
    wait_until([&] { return jobs_.load(std::memory_order_acquire) != seen; }, [&] { jobs_.wait(seen); });
    seen = jobs_.load(std::memory_order_acquire);
    {
      const std::lock_guard lock(mutex_);
      if (!open_ || number >= team_) continue;
      helping_.fetch_add(1, std::memory_order_relaxed);
    }
    work(number);
    if (helping_.fetch_sub(1, std::memory_order_release) == 1) helping_.notify_all();
  }
}

std::atomic<Pool*> instance = nullptr;

// Its threads outlive every static object. A fork takes none of them along, and copies the pool in the middle of
// whatever it was doing, so the child makes a pool of its own.
Pool& pool() {
  [[maybe_unused]] static const int watching =
      pthread_atfork(nullptr, nullptr, [] { instance.store(nullptr, std::memory_order_relaxed); });
  Pool* pool = instance.load(std::memory_order_acquire);
  if (pool == nullptr) {
    auto mine = std::make_unique<Pool>();
    if (instance.compare_exchange_strong(pool, mine.get(), std::memory_order_acq_rel)) pool = mine.release();
  }
  return *pool;
}

std::atomic<int> thread_count = 0;  // 0: not yet asked for

std::atomic<const Runner*> other_runner = nullptr;

// Hands out tasks as the pool does, on threads that belong to somebody else.
void run_on(const Runner& runner, int team, Index tasks, detail::TaskFunction function, void* context) {
  struct Job {
    Index tasks;
    detail::TaskFunction function;
    void* context;
    std::atomic<Index> next = 0;
  } job = {.tasks = tasks, .function = function, .context = context};
  const auto share = [](void* shared, int thread) {
    Job& mine = *static_cast<Job*>(shared);
    const bool outer = std::exchange(inside_task, true);
    for (Index task = mine.next.fetch_add(1, std::memory_order_relaxed); task < mine.tasks;
         task = mine.next.fetch_add(1, std::memory_order_relaxed)) {
      mine.function(mine.context, task, thread);
    }
    inside_task = outer;
  };
  runner.run(std::min(team, std::max(runner.threads(), 1)), share, &job);
}

// More threads than the quota allows would all be stopped together, in the middle of their work.
int default_threads() {
  const int processors = omp_get_max_threads();
  if (std::getenv("OMP_NUM_THREADS") != nullptr) return processors;
  const double quota = control_group_limits().processors.value_or(processors);
  return static_cast<int>(std::clamp<double>(std::ceil(quota), 1, processors));
}

}  // namespace

int threads() {
  int count = thread_count.load(std::memory_order_relaxed);
  if (count == 0) {
    count = default_threads();
    thread_count.store(count, std::memory_order_relaxed);
  }
  return count;
}

void set_threads(int count) { thread_count.store(std::max(count, 1), std::memory_order_relaxed); }

void set_runner(const Runner* runner) {
  [[maybe_unused]] static const int watching =
      pthread_atfork(nullptr, nullptr, [] { other_runner.store(nullptr, std::memory_order_relaxed); });
  other_runner.store(runner, std::memory_order_release);
}

SingleThreaded::SingleThreaded() : outer_(omp_get_max_threads()) { omp_set_num_threads(1); }
SingleThreaded::~SingleThreaded() { omp_set_num_threads(outer_); }

void detail::run_tasks(Index tasks, int team, TaskFunction function, void* context) {
  team = static_cast<int>(std::min<Index>(team, tasks));
  // A second caller, on another thread, works without helpers.
  std::unique_lock busy(pool().caller(), std::defer_lock);
  if (team <= 1 || inside_task || !busy.try_lock()) {
    for (Index task = 0; task < tasks; ++task) function(context, task, 0);
    return;
  }
  if (const Runner* runner = other_runner.load(std::memory_order_acquire)) {
    return run_on(*runner, team, tasks, function, context);
  }
  inside_task = true;
  pool().run(team, tasks, function, context);
  inside_task = false;
}

}  // namespace tilegrad::kernels
