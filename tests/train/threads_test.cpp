// Training, and the recorder of its time and memory, while other threads are at work; the thread sanitizer watches.
#include <doctest/doctest.h>

#include <atomic>
#include <bit>
#include <functional>
#include <thread>

#include "tests/train/profile_helpers.h"
#include "tests/train/tiny_runs.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/kernels/parallel.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

// A thread that repeats `work` as long as this lives.
class Meanwhile {
 public:
  explicit Meanwhile(std::function<void()> work)
      : thread_([this, work = std::move(work)] {
          while (!done_) {
            work();
            ++rounds_;
          }
        }) {}
  ~Meanwhile() {
    done_ = true;
    thread_.join();
  }
  Meanwhile(const Meanwhile&) = delete;
  Meanwhile& operator=(const Meanwhile&) = delete;

  void wait_for_round() const {
    for (const int seen = rounds_; rounds_ == seen;) std::this_thread::yield();
  }

 private:
  std::atomic<bool> done_ = false;
  std::atomic<int> rounds_ = 0;
  std::thread thread_;  // last, because it uses the rest
};

RunConfig with_dropout(const std::string& checkpoint) {
  RunConfig config = with_checkpoint(checkpoint);
  config.model.dropout = 0.1;
  return config;
}

// The bits of loss and gradient norm of each step.
std::vector<std::uint64_t> bits_of_steps(
    const RunConfig& config, int steps, const std::function<void()>& before_step = [] {}) {
  Trainer trainer(config);
  std::vector<std::uint64_t> bits;
  for (int i = 0; i < steps; ++i) {
    before_step();
    const StepReport report = trainer.step();
    bits.push_back(std::bit_cast<std::uint64_t>(report.loss));
    bits.push_back(std::bit_cast<std::uint64_t>(report.grad_norm));
  }
  return bits;
}

// Calls and saved bytes of each phase.
std::vector<Index> counts(const Profile& profile) {
  std::vector<Index> numbers;
  for (const Phase phase : kPhases) {
    numbers.push_back(calls_in(profile, phase));
    numbers.push_back(saved_in(profile, phase));
  }
  return numbers;
}

}  // namespace

TEST_CASE("trainer: the number of threads may change while it steps, and no bit does") {
  const kernels::ThreadScope scope(2);
  for (const char* checkpoint : {"none", "block"}) {
    const RunConfig config = with_dropout(checkpoint);
    const auto expected = bits_of_steps(config, 6);
    int count = 1;
    const Meanwhile changing([&] { kernels::set_threads(count = count % 4 + 1); });
    CHECK(bits_of_steps(config, 6, [&] { changing.wait_for_round(); }) == expected);
  }
}

TEST_CASE("trainer: two of them in one process compute what each computes alone") {
  const kernels::ThreadScope scope(3);
  const RunConfig config = with_dropout("none"), other = with_dropout("block");
  const auto expected = bits_of_steps(config, 6);
  const auto expected_other = bits_of_steps(other, 1);
  std::atomic<bool> same = true;
  {
    const Meanwhile training([&] { same = same && bits_of_steps(other, 1) == expected_other; });
    CHECK(bits_of_steps(config, 6, [&] { training.wait_for_round(); }) == expected);
  }
  CHECK(same);
}

TEST_CASE("profile: has the ops of its own thread alone, while others compute and allocate") {
  const kernels::ThreadScope scope(2);
  const auto expected = counts(profile_of_step(tiny_config()));
  const Var x = random_leaf({32, 32}, 1);
  const Meanwhile computing([&] { gelu(x); });
  for (int i = 0; i < 20; ++i) {
    computing.wait_for_round();
    CHECK(counts(profile_of_step(tiny_config())) == expected);
  }
}
