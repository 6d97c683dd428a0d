#include "tilegrad/train/labs/bench_measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/measure/attention_workload.h"
#include "tilegrad/train/measure/best_peak.h"
#include "tilegrad/train/measure/machine_load.h"
#include "tilegrad/train/measure/profiler.h"
#include "tilegrad/train/measure/speed.h"
#include "tilegrad/train/measure/system.h"
#include "tilegrad/train/measure/tensor_difference.h"
#include "tilegrad/train/run/names.h"

namespace tilegrad::train {

namespace {

using Results = AttentionWorkload::Results;

// Calls as they were timed, and when the first one could begin.
struct CallLog {
  using Clock = std::chrono::steady_clock;
  double us() const { return std::chrono::duration<double, std::micro>(Clock::now() - start).count(); }

  Clock::time_point start = Clock::now();
  std::vector<TimedCall> calls;
};

// Measures one call while it lives.
class CallScope {
 public:
  CallScope(CallLog& log, AttentionKernel kernel, Phase phase) : log_(log) {
    memory::reset_peak();
    call_ = {.kernel = kernel, .phase = phase, .begin_us = log.us(), .live_before = memory::usage().live};
  }
  ~CallScope() {
    call_.ms = 1e-3 * (log_.us() - call_.begin_us);
    const memory::Usage usage = memory::usage();
    call_.live_after = usage.live;
    call_.peak_bytes = usage.peak;
    log_.calls.push_back(call_);
  }
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;

 private:
  CallLog& log_;
  TimedCall call_;
};

// One repetition: forward, and backward if asked for.
Results run_once(const BenchCase& bench, const AttentionWorkload& workload, AttentionKernel kernel,
                 CallLog& log) {
  std::optional<CallScope> call(std::in_place, log, kernel, Phase::forward);
  if (!bench.backward) return {.out = workload.forward(kernel), .grads = {}};
  return workload.step(kernel, [&] {
    call.reset();
    call.emplace(log, kernel, Phase::backward);
  });
}

void check_finite(const Tensor& x, AttentionKernel kernel) {
  // A difference from itself is 0 unless there is a NaN.
  check(std::isfinite(largest_magnitude(x)) && largest_difference(x, x) == 0,
        "bench: {} gives a result that is not finite", name_of(kernel));
}

// What is known before anything is timed.
struct Comparison {
  std::vector<AttentionKernel> fitting = {};
  std::vector<std::string> skipped = {};
  std::optional<double> out_diff = {}, grads_diff = {};  // missing unless there are two results
};

double difference_of(const Tensor& flash, const Tensor& naive) {
  check(agree(flash, naive), "bench: flash and naive disagree by {:.1e}", largest_difference(flash, naive));
  return largest_difference(flash, naive);
}

double difference_of_grads(const Results& flash, const Results& naive) {
  double largest = 0;
  for (std::size_t i = 0; i < flash.grads.size(); ++i) {
    largest = std::max(largest, difference_of(flash.grads[i], naive.grads[i]));
  }
  return largest;
}

// Computes once with each kernel, which also warms up caches and memory.
Comparison compare_kernels(const BenchCase& bench, const AttentionWorkload& workload) {
  Comparison comparison;
  std::vector<Results> all;
  CallLog log;
  for (const AttentionKernel kernel : bench.kernels) {
    try {
      all.push_back(run_once(bench, workload, kernel, log));
    } catch (const memory::OutOfMemory& error) {
      if (!bench.skip_naive || kernel != AttentionKernel::naive) throw;
      comparison.skipped.push_back(fmt::format("{} is skipped: {}", name_of(kernel), error.what()));
      continue;
    }
    comparison.fitting.push_back(kernel);
    check_finite(all.back().out, kernel);
    for (const Tensor& grad : all.back().grads) check_finite(grad, kernel);
  }
  if (all.size() != 2) return comparison;
  comparison.out_diff = difference_of(all[1].out, all[0].out);
  if (bench.backward) comparison.grads_diff = difference_of_grads(all[1], all[0]);
  return comparison;
}

struct InterleavedCalls {
  std::vector<TimedCall> calls;
  double peak_gflops = 0;
  std::vector<std::size_t> looks;
};

std::vector<double> times_of(const std::vector<TimedCall>& calls, AttentionKernel kernel, Phase phase) {
  std::vector<double> ms;
  for (const TimedCall& call : calls) {
    if (call.kernel == kernel && call.phase == phase) ms.push_back(call.ms);
  }
  return ms;
}

// Whether the kernels cannot be told apart yet, in one of the passes.
bool undecided(const BenchCase& bench, const std::vector<TimedCall>& calls,
               const std::vector<std::size_t>& looks) {
  const auto open = [&](Phase phase) {
    return sequential_sign_test(times_of(calls, AttentionKernel::flash, phase),
                                times_of(calls, AttentionKernel::naive, phase),
                                looks) == Verdict::not_distinguishable;
  };
  return open(Phase::forward) || (bench.backward && open(Phase::backward));
}

// Interleaved, so that whatever slows down the machine for a while slows down all of them; for the time that was asked
// for and, while the kernels cannot be told apart, twice and four times that.
InterleavedCalls time_interleaved(const BenchCase& bench, const AttentionWorkload& workload,
                                  const std::vector<AttentionKernel>& kernels) {
  constexpr double kPeakShare =
      0.1;  // of the time goes to the peak, so that short calls get their share, too
  const double budget_us = 1e6 * bench.seconds * static_cast<double>(kernels.size());
  CallLog log;
  std::vector<std::size_t> looks;
  double peak = 0, peak_us = 0;
  std::size_t rounds = 0;
  const auto run_round = [&] {
    for (const AttentionKernel kernel : kernels) {
      const double now_us = log.us();
      if (rounds < kFewestCalls || peak_us < kPeakShare * now_us) {
        peak =
            with_float_type("bench", bench.problem.dtype, []<class T>() { return highest_fma_gflops<T>(); });
        peak_us += log.us() - now_us;
      }
      run_once(bench, workload, kernel, log);
    }
    ++rounds;
  };
  for (const double times : kBenchLooks) {
    const std::size_t before = looks.empty() ? 0 : looks.back();
    // Each look has a new round to look at, also if a single one takes longer than the time.
    const auto must_go_on = [&] { return rounds < kFewestCalls || (rounds == before && budget_us > 0); };
    while (must_go_on() || log.us() < times * budget_us) run_round();
    if (rounds == before) break;  // no time was given
    looks.push_back(rounds);
    if (kernels.size() < 2 || !undecided(bench, log.calls, looks)) break;
  }
  return {.calls = std::move(log.calls), .peak_gflops = peak, .looks = looks};
}

// Where the time of some calls goes, stage by stage.
Profile profile_calls(const BenchCase& bench, const AttentionWorkload& workload, AttentionKernel kernel) {
  constexpr Index kCalls = 3;
  Profiler profiler;
  for (Index number = 1; number <= kCalls; ++number) {
    const Profiler::Call call(profiler, number);
    if (bench.backward) {
      workload.step(kernel);
    } else {
      workload.forward(kernel);
    }
  }
  return profiler.profile("call");
}

// Fills in what was measured; nothing if the kernel was skipped.
void summarize(PassReport& pass, const std::vector<TimedCall>& calls, Index input_bytes) {
  for (const TimedCall& call : calls) {
    if (call.kernel != pass.kernel || call.phase != pass.phase) continue;
    pass.times_ms.push_back(call.ms);
    pass.peak_bytes = std::max(pass.peak_bytes.value_or(0), call.peak_bytes - input_bytes);
  }
}

}  // namespace

std::optional<Quartiles> PassReport::ms() const {
  return times_ms.empty() ? std::nullopt : std::optional(quartiles(times_ms));
}

std::optional<double> PassReport::gflops() const {
  return times_ms.empty() ? std::nullopt : std::optional(1e-6 * flops / median(times_ms));
}

std::optional<double> PassReport::fraction() const {
  return times_ms.empty() ? std::nullopt : std::optional(*gflops() / peak_gflops);
}

BenchReport run_bench(const BenchCase& bench) {
  const AttentionProblem& problem = bench.problem;
  const AttentionWorkload workload(problem, RandomKey{1},
                                   {.backward = bench.backward, .random_mask = bench.random_mask});
  const Index input_bytes = memory::usage().live;
  const Comparison comparison = compare_kernels(bench, workload);
  const MachineLoad load;
  InterleavedCalls timing = time_interleaved(bench, workload, comparison.fitting);

  const double peak = best_peak(timing.peak_gflops, to_string(problem.dtype), kernels::threads());

  BenchReport report = {.passes = {},
                        .calls = std::move(timing.calls),
                        .peak_gflops = peak,
                        .measured_peak_gflops = timing.peak_gflops,
                        .share_of_others = load.share_of_others(),
                        .looks = timing.looks,
                        .skipped = comparison.skipped};
  for (const AttentionKernel kernel : comparison.fitting) {
    if (bench.profile) report.profiles.emplace_back(kernel, profile_calls(bench, workload, kernel));
  }
  for (const AttentionKernel kernel : bench.kernels) {
    for (const Phase phase : {Phase::forward, Phase::backward}) {
      if (phase == Phase::backward && !bench.backward) continue;
      PassReport& pass = report.passes.emplace_back(
          PassReport{.kernel = kernel,
                     .phase = phase,
                     .flops = attention_flops(problem, phase),
                     .moved_bytes = moved_bytes(problem, kernel, phase, l2_bytes()),
                     .peak_gflops = peak,
                     .max_abs_diff = phase == Phase::forward ? comparison.out_diff : comparison.grads_diff});
      summarize(pass, report.calls, input_bytes);
    }
  }
  return report;
}

}  // namespace tilegrad::train
