#include "tilegrad/train/labs/bench_measure.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <span>

#include "tilegrad/train/labs/bench_report.h"
#include "tilegrad/train/measure/statistics.h"

using namespace tilegrad;
using namespace tilegrad::train;

TEST_CASE("bench: the plan says about how long it takes") {
  BenchCase bench = {.seconds = 2};
  CHECK(bench_plan(bench) ==
        "naive and flash, interleaved, at least 3 calls of each: about 4 s, up to 16 s while undecided\n");
  CHECK(bench_plan(bench, 8) ==
        "naive and flash, interleaved, at least 3 calls of each: about 32 s, up to 2 min while undecided\n");
  bench.kernels = {AttentionKernel::flash};
  CHECK(bench_plan(bench) == "flash, at least 3 calls: about 2 s\n");
}

TEST_CASE("bench: the calls of the kernels are interleaved") {
  const BenchReport report = run_bench({.problem = {.tq = 16, .tk = 16, .head_size = 4}, .seconds = 0});
  REQUIRE(report.calls.size() == 6);
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK(report.calls[i].kernel == (i % 2 == 0 ? AttentionKernel::naive : AttentionKernel::flash));
    CHECK(report.calls[i].peak_bytes >= report.calls[i].live_after);
  }
}

TEST_CASE("bench: goes on only while the kernels cannot be told apart, up to four times as long") {
  const BenchCase alone = {
      .problem = {.tq = 16, .tk = 16, .head_size = 4}, .kernels = {AttentionKernel::flash}, .seconds = 0.01};
  CHECK(run_bench(alone).looks.size() == 1);   // there is nobody to be told from
  for (const double seconds : {0.02, 1e-9}) {  // the second is over before the first call is
    const BenchReport report =
        run_bench({.problem = {.tq = 16, .tk = 16, .head_size = 4}, .seconds = seconds});
    REQUIRE(report.looks.size() >= 1);
    REQUIRE(report.looks.size() <= 3);
    CHECK(std::is_sorted(report.looks.begin(), report.looks.end()));
    CHECK(2 * report.looks.back() == report.calls.size());
    const auto& naive = report.passes[0].times_ms;
    const auto& flash = report.passes[1].times_ms;
    const std::span<const std::size_t> looks = report.looks;
    const bool decided = sequential_sign_test(flash, naive, looks) != Verdict::not_distinguishable;
    CHECK((decided || looks.size() == 3));
    CHECK(sequential_sign_test(flash, naive, looks.first(looks.size() - 1)) == Verdict::not_distinguishable);
  }
}
