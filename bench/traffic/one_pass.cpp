// One call of attention for a simulator of caches to count, and nothing else that differs between runs: traffic.py runs
// it under valgrind. One thread. Before the call, between its passes and after it, a sweep through memory empties the
// caches, so that every pass begins cold and everything that it wrote is written back.

#include <cstdio>
#include <string_view>
#include <vector>

#include "bench/program.h"
#include "tilegrad/base/error.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/measure/attention_workload.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

// Reads four times as many bytes as the caches hold.
class Sweep {
 public:
  explicit Sweep(Index cache_bytes) : numbers_(4 * cache_bytes / sizeof(Index), 1) {}

  void operator()() const {
    constexpr std::size_t kLine = 64 / sizeof(Index);
    Index sum = 0;
    for (std::size_t i = 0; i < numbers_.size(); i += kLine) sum += numbers_[i];
    sum_ = sum;
  }

 private:
  std::vector<Index> numbers_;
  mutable volatile Index sum_ = 0;  // keeps the loop
};

// What runs up to `call`: nothing, the forward pass, or both. The number of sweeps is the same.
void run(const AttentionWorkload& workload, std::string_view kernel, std::string_view call,
         const Sweep& sweep) {
  sweep();
  if (call == "none") {
    sweep();
  } else {
    const AttentionKernel chosen = kernel == "naive" ? AttentionKernel::naive : AttentionKernel::flash;
    if (call == "forward") {
      workload.forward(chosen);
      sweep();
    } else {
      workload.step(chosen, [&sweep] { sweep(); });  // a copy would be traffic of its own
    }
  }
  sweep();
}

void print_model(const AttentionProblem& problem, Index cache_bytes) {
  for (const AttentionKernel kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    for (const Phase phase : {Phase::forward, Phase::backward}) {
      std::printf("%s %s %.0f\n", kernel == AttentionKernel::naive ? "naive" : "flash",
                  phase == Phase::forward ? "forward" : "backward",
                  moved_bytes(problem, kernel, phase, cache_bytes));
    }
  }
}

}  // namespace

// one_pass KERNEL CALL T D CACHE_BYTES: the call of a kernel, or for `model` the bytes of the model.
int main(int argc, char** argv) {
  return bench::guarded([&] {
    check(argc == 6, "one_pass: give kernel, call, T, D and the bytes of the last-level cache");
    const std::string_view kernel = argv[1], call = argv[2];
    const auto number = [&](int i) { return bench::positive("one_pass", argv[i]); };
    const Index tokens = number(3), size = number(4), cache_bytes = number(5);
    const AttentionProblem problem = {.tq = tokens, .tk = tokens, .head_size = size};
    if (kernel == "model") {
      print_model(problem, cache_bytes);
      return;
    }
    kernels::set_threads(1);
    run(AttentionWorkload(problem, RandomKey{1}), kernel, call, Sweep(cache_bytes));
  });
}
