#include "tilegrad/kernels/attention/stages.h"

#include <numeric>
#include <set>

#include "tests/kernels/attention/attention_case.h"
#include "tilegrad/kernels/parallel.h"

using namespace tilegrad;
using namespace tilegrad::test;
using kernels::Stage;
using kernels::StageTimes;
using kernels::StageTimesScope;

namespace {

// Two tiles of queries and three of keys in each head.
AttentionCase tiled_case() {
  return random_case({2, 32, 48, 4, 2, 9, 7}, {.causal = true, .tiles = {16, 16}});
}
// Softcap, bias and dropout take flash's general path.
AttentionCase general_case() {
  AttentionCase c = tiled_case();
  c.options.softcap = 2.0;
  add_bias(c, 1, 1);
  add_dropout(c, 0.1);
  return c;
}
AttentionCase decoding_case() { return random_case({1, 1, 400, 4, 1, 9, 7}); }

std::vector<AttentionCase> all_cases() { return {tiled_case(), general_case(), decoding_case()}; }

std::set<Stage> stages_of(const StageTimes& times) {
  std::set<Stage> stages;
  for (int i = 0; i < kernels::kStages; ++i) {
    if (times.stage_ns[static_cast<std::size_t>(i)] > 0) stages.insert(static_cast<Stage>(i));
  }
  return stages;
}

// What a call reports.
StageTimes times_of(Kernel kernel, const AttentionCase& c) {
  StageTimes times;
  const StageTimesScope listening(times);
  run<float>(kernel, c);
  return times;
}

}  // namespace

TEST_CASE(
    "stages: they add up to the tasks of a call, to the nanosecond, whatever runs on however many threads") {
  for (const int threads : {1, 3}) {
    const kernels::ThreadScope scope(threads);
    for (const AttentionCase& c : all_cases()) {
      for (const Kernel kernel : kKernels) {
        const StageTimes times = times_of(kernel, c);
        CAPTURE(threads);
        CAPTURE(kernel);
        CHECK(times.tasks_ns > 0);
        CHECK(std::accumulate(times.stage_ns.begin(), times.stage_ns.end(), std::int64_t{0}) ==
              times.tasks_ns);
      }
    }
  }
}

TEST_CASE("stages: whoever listens changes no bit") {
  for (const AttentionCase& c : all_cases()) {
    for (const Kernel kernel : kKernels) {
      const auto unheard = run<float>(kernel, c);
      StageTimes times;
      const StageTimesScope listening(times);
      CHECK(same_bits(run<float>(kernel, c), unheard));
    }
  }
}

TEST_CASE("stages: every product of a kernel is one, forward and backward") {
  const std::set<Stage> flash = {Stage::prepare, Stage::scores,        Stage::softmax,   Stage::values,
                                 Stage::delta,   Stage::probabilities, Stage::dp_and_ds, Stage::dv,
                                 Stage::dk,      Stage::wait,          Stage::dq,        Stage::store,
                                 Stage::other};
  const std::set<Stage> naive = {Stage::prepare, Stage::scores, Stage::softmax, Stage::values,
                                 Stage::dp,      Stage::ds,     Stage::dv,      Stage::dk,
                                 Stage::dq,      Stage::store,  Stage::other};
  for (const AttentionCase& c : all_cases()) {
    for (const Kernel kernel : kKernels) {
      CAPTURE(kernel);
      CHECK(stages_of(times_of(kernel, c)) == (kernel == Kernel::flash ? flash : naive));
    }
  }
}

TEST_CASE("stages: the innermost scope of a thread listens, and after it the outer one again") {
  StageTimes outer, inner;
  const StageTimesScope listening(outer);
  {
    const StageTimesScope nested(inner);
    run<float>(Kernel::flash, tiled_case());
  }
  CHECK(outer.tasks_ns == 0);
  CHECK(inner.tasks_ns > 0);
  const StageTimes before = inner;
  run<float>(Kernel::flash, tiled_case());
  CHECK(outer.tasks_ns > 0);
  CHECK(inner.stage_ns == before.stage_ns);
}
