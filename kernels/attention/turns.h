#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "tilegrad/base/index.h"

namespace tilegrad::kernels {

/// Lets tasks that add to the same memory do so one after the other, in a fixed order.
class Turns {
 public:
  explicit Turns(Index count) : done_(static_cast<std::size_t>(count)) {}

  void wait(Index place, Index turn) const {
    const auto& done = done_[static_cast<std::size_t>(place)];
    for (int i = 0; done.load(std::memory_order_acquire) != turn; ++i) {
      if (i > 1000) std::this_thread::yield();
    }
  }
  void pass(Index place, Index turn) {
    done_[static_cast<std::size_t>(place)].store(turn + 1, std::memory_order_release);
  }

 private:
  std::vector<std::atomic<Index>> done_;
};

}  // namespace tilegrad::kernels
