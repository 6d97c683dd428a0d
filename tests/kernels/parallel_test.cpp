#include "tilegrad/kernels/parallel.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "tilegrad/kernels/attention/attention.h"
#include "tilegrad/kernels/attention/workspace.h"

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

TEST_CASE("parallel_tasks: a team that is handed over holds, whatever threads() says by now") {
  const ThreadScope scope(2);
  struct Pieces {
    float* x;
    StageMarks stages;
  };
  const Workspace<float, Pieces> workspace({{&Pieces::x, 16}});
  set_threads(8);
  std::mutex mutex;
  std::set<const float*> used;
  workspace.run(400, [&](Index, const Pieces& w) {
    std::this_thread::sleep_for(std::chrono::microseconds(20));  // so that all threads get their share
    const std::lock_guard lock(mutex);
    used.insert(w.x);
  });
  CHECK(used.size() <= 2);
  for (const float* x : used) CHECK((x == *used.begin() || x == *used.begin() + 16));
  std::atomic<bool> beyond = false;
  parallel_tasks(
      400, [&](Index, int thread) { beyond = beyond || thread > 2; }, 3);
  CHECK_FALSE(beyond);
}

TEST_CASE("parallel_tasks: the number of threads may change while attention is computed") {
  const Index time = 70, heads = 2, size = 8;
  std::vector<float> x(static_cast<std::size_t>(time * heads * size)), expected(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 13) - 6;
  std::vector<float> lse(static_cast<std::size_t>(time * heads));
  const HeadsView<const float> in(x.data(), 1, time, heads, size);
  const auto attend = [&](std::vector<float>& out) {
    flash_attention<float>(HeadsView<float>(out.data(), 1, time, heads, size), lse,
                           {.q = in, .k = in, .v = in}, {.causal = true});
  };
  const ThreadScope scope(1);
  attend(expected);
  std::atomic<bool> done = false;
  std::thread changing([&] {
    for (int count = 1; !done; count = count % 6 + 1) set_threads(count);
  });
  bool same = true;
  for (int i = 0; i < 200; ++i) {
    std::vector<float> out(x.size());
    attend(out);
    same = same && out == expected;
  }
  done = true;
  changing.join();
  CHECK(same);
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
