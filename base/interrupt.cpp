#include "tilegrad/base/interrupt.h"

#include <time.h>

#include <atomic>
#include <cstdint>

namespace tilegrad {

namespace {

// When the first request came, in milliseconds; 0 before it.
std::atomic<std::int64_t> first_request = 0;
std::atomic<int> first_signal = 0;
static_assert(std::atomic<int>::is_always_lock_free);
static_assert(std::atomic<std::int64_t>::is_always_lock_free,
              "a signal handler may only touch what is lock-free");

std::int64_t milliseconds() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000 + 1;
}

void on_signal(int signal) {
  const std::int64_t now = milliseconds();
  std::int64_t first = 0;
  int none = 0;
  first_signal.compare_exchange_strong(none, signal);  // before the request is seen
  if (first_request.compare_exchange_strong(first, now)) return;
  // One request can arrive twice: from the terminal, and passed on by a parent process.
  constexpr std::int64_t kSameRequest = 1000;
  const bool every_write_repeats_it = signal == SIGPIPE;
  if (every_write_repeats_it || now - first < kSameRequest) return;
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

InterruptScope::InterruptScope() {
  first_request = 0;
  first_signal = 0;
  struct sigaction action = {};
  action.sa_handler = on_signal;
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], nullptr, &outer_[i]);
    if (outer_[i].sa_handler != SIG_IGN) sigaction(kSignals[i], &action, nullptr);
  }
}

InterruptScope::~InterruptScope() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &outer_[i], nullptr);
}

bool InterruptScope::requested() { return first_request != 0; }

int InterruptScope::signal() { return first_signal; }

}  // namespace tilegrad
