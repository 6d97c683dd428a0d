// A process that forks while other threads are at work: the child has none of them, and must not wait for them.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <thread>

#include "tilegrad/base/memory.h"
#include "tilegrad/kernels/parallel.h"

using namespace tilegrad;
using namespace tilegrad::kernels;

namespace {

Index sum_of_tasks(Index tasks) {
  std::atomic<Index> sum = 0;
  parallel_tasks(tasks, [&](Index task, int) { sum += task; });
  return sum;
}

// Whether two tasks run on two threads: each waits for the other, though not for ever.
bool has_helpers() {
  std::atomic<int> begun = 0;
  const auto start = std::chrono::steady_clock::now();
  parallel_tasks(2, [&](Index, int) {
    ++begun;
    while (begun < 2 && std::chrono::steady_clock::now() - start < std::chrono::seconds(20)) {
      std::this_thread::yield();
    }
  });
  return std::chrono::steady_clock::now() - start < std::chrono::seconds(20);
}

// The exit code of the child, -1 if it had to be killed.
int exit_code_of(pid_t child) {
  constexpr auto kHangs = std::chrono::seconds(60);
  const auto start = std::chrono::steady_clock::now();
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() - start > kHangs) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      return -1;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

// The thread sanitizer allows no threads in such a child.
TEST_CASE("fork: a child of a process whose threads are at work computes and allocates" *
          doctest::test_suite("slow")) {
  const ThreadScope scope(3);
  std::atomic<bool> done = false;
  std::thread computing([&] {
    while (!done) sum_of_tasks(50);
  });
  std::thread allocating([&] {
    while (!done) memory::Block(64, memory::Category::workspace);
  });
  for (int i = 0; i < 20; ++i) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      const memory::Block block(64, memory::Category::workspace);
      _exit(sum_of_tasks(100) == 100 * 99 / 2 && has_helpers() ? 0 : 1);
    }
    const int code = exit_code_of(child);
    CHECK(code == 0);
    if (code != 0) break;
  }
  done = true;
  computing.join();
  allocating.join();
}
