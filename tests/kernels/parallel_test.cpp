#include "tilegrad/kernels/parallel.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>
#include <vector>

using namespace tilegrad;
using namespace tilegrad::kernels;

TEST_CASE("ThreadScope: sets the number of threads, and gives the one before back") {
  const int before = threads();
  {
    const ThreadScope outer(5);
    CHECK(threads() == 5);
    {
      const ThreadScope inner(0);
      CHECK(threads() == 1);
    }
    CHECK(threads() == 5);
  }
  CHECK(threads() == before);
}

TEST_CASE("parallel_tasks: every task runs exactly once, on a thread below threads()") {
  for (const int count : {1, 2, 3, 7}) {
    const ThreadScope scope(count);
    for (const Index tasks : {0, 1, 2, 5, 1000}) {
      std::vector<int> runs(static_cast<std::size_t>(tasks));
      std::atomic<bool> known_thread = true;
      parallel_tasks(tasks, [&](Index task, int thread) {
        ++runs[task];
        if (thread < 0 || thread >= count) known_thread = false;
      });
      CHECK(runs == std::vector<int>(static_cast<std::size_t>(tasks), 1));
      CHECK(known_thread);
    }
  }
}

TEST_CASE("parallel_tasks: no two tasks that run at once have the same thread number") {
  const ThreadScope scope(3);
  std::array<std::atomic<int>, 3> inside{};
  std::atomic<bool> shared = false;
  parallel_tasks(300, [&](Index, int thread) {
    auto& mine = inside[thread];
    if (++mine != 1) shared = true;
    --mine;
  });
  CHECK_FALSE(shared);
}

TEST_CASE("parallel_tasks: one thread takes the tasks in order") {
  const ThreadScope scope(1);
  std::vector<Index> order;
  parallel_tasks(4, [&](Index task, int) { order.push_back(task); });
  CHECK(order == std::vector<Index>{0, 1, 2, 3});
}

TEST_CASE("parallel_tasks: nested calls run on the calling thread") {
  const ThreadScope scope(3);
  std::vector<int> runs(6 * 5);
  std::atomic<bool> moved = false;
  parallel_tasks(6, [&](Index outer, int) {
    const auto caller = std::this_thread::get_id();
    parallel_tasks(5, [&](Index inner, int) {
      ++runs[outer * 5 + inner];
      if (std::this_thread::get_id() != caller) moved = true;
    });
  });
  CHECK(runs == std::vector<int>(30, 1));
  CHECK_FALSE(moved);
}

TEST_CASE("parallel_tasks: two callers at once do not disturb each other") {
  const ThreadScope scope(2);
  const auto sum_of_tasks = [](Index tasks) {
    std::atomic<Index> sum = 0;
    parallel_tasks(tasks, [&](Index task, int) { sum += task; });
    return sum.load();
  };
  Index first = 0;
  std::thread other([&] { first = sum_of_tasks(500); });
  const Index second = sum_of_tasks(700);
  other.join();
  CHECK(first == 500 * 499 / 2);
  CHECK(second == 700 * 699 / 2);
}

TEST_CASE("parallel_for: the pieces cover the range and depend on size and grain alone") {
  for (const int count : {1, 2, 7}) {
    const ThreadScope scope(count);
    std::vector<Index> ends(4);
    parallel_for(35, 10, [&](Index begin, Index end) { ends[begin / 10] = end; });
    CHECK(ends == std::vector<Index>{10, 20, 30, 35});
    bool called = false;
    parallel_for(0, 10, [&](Index, Index) { called = true; });
    CHECK_FALSE(called);
  }
}

namespace {

// A team of threads that lives for one job, as another library's might; `used` counts its jobs.
struct ForeignTeam {
  static inline std::atomic<int> used = 0;
  static int threads() { return 3; }
  static void run(int team, void (*share)(void* context, int thread), void* context) {
    ++used;
    std::vector<std::thread> helpers;
    for (int thread = 1; thread < team; ++thread) helpers.emplace_back(share, context, thread);
    share(context, 0);
    for (std::thread& helper : helpers) helper.join();
  }
};
constexpr Runner kForeignTeam = {.threads = ForeignTeam::threads, .run = ForeignTeam::run};

}  // namespace

TEST_CASE("parallel_tasks: on another's threads every task runs once, below the smaller of both teams") {
  for (const int count : {2, 3, 7}) {
    const ThreadScope scope(count);
    set_runner(&kForeignTeam);
    ForeignTeam::used = 0;
    std::vector<int> runs(1000);
    std::atomic<bool> known_thread = true, nested_alone = true;
    parallel_tasks(1000, [&](Index task, int thread) {
      ++runs[task];
      if (thread < 0 || thread >= std::min(count, 3)) known_thread = false;
      parallel_tasks(2, [&](Index, int inner) {
        if (inner != 0) nested_alone = false;
      });
    });
    CHECK(ForeignTeam::used == 1);
    set_runner(nullptr);
    parallel_tasks(10, [](Index, int) {});
    CHECK(ForeignTeam::used == 1);
    CHECK(runs == std::vector<int>(1000, 1));
    CHECK(known_thread);
    CHECK(nested_alone);
  }
}
