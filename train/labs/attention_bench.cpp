#include "tilegrad/train/labs/attention_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "tilegrad/autograd/tape.h"
#include "tilegrad/train/measure/speed.h"
#include "tilegrad/train/measure/system.h"
#include "tilegrad/train/measure/tensor_difference.h"

namespace tilegrad::train {

namespace {

using Clock = std::chrono::steady_clock;

double us_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

// Each element is seen or not, with equal chances.
Tensor random_mask(Index tq, Index tk, RandomKey key) {
  Tensor mask = Tensor::empty({1, 1, tq, tk}, Dtype::u8);
  RandomStream stream(key);
  std::uint64_t bits = 0;
  Index i = 0;
  for (std::uint8_t& seen : mask.mut<std::uint8_t>()) {
    bits = i++ % 64 == 0 ? stream.bits() : bits >> 1;
    seen = bits & 1;
  }
  return mask;
}

void check_finite(const Tensor& t, AttentionKernel kernel) {
  with_float_type("bench", t.dtype(), [&]<class T>() {
    const auto x = t.view<T>();
    check(std::all_of(x.begin(), x.end(), [](T value) { return std::isfinite(value); }),
          "bench: {} gives a result that is not finite", type_name(kernel));
  });
}

// Calls as they were timed, and when the first one could begin.
struct CallLog {
  Clock::time_point start = Clock::now();
  std::vector<TimedCall> calls;
};

// Measures one call while it lives.
class CallTimer {
 public:
  CallTimer(CallLog& log, AttentionKernel kernel, Pass pass) : log_(log) {
    memory::reset_peak();
    call_ = {
        .kernel = kernel, .pass = pass, .begin_us = us_since(log.start), .live_before = memory::usage().live};
  }
  ~CallTimer() {
    call_.ms = 1e-3 * (us_since(log_.start) - call_.begin_us);
    const memory::Usage usage = memory::usage();
    call_.live_after = usage.live;
    call_.peak_bytes = usage.peak;
    log_.calls.push_back(call_);
  }
  CallTimer(const CallTimer&) = delete;
  CallTimer& operator=(const CallTimer&) = delete;

 private:
  CallLog& log_;
  TimedCall call_;
};

// What one kernel computed.
struct Results {
  Tensor out;
  std::vector<Tensor> grads;  // dq, dk, dv; none if there was no backward
};

class Workload {
 public:
  explicit Workload(const BenchCase& bench) : bench_(bench) {
    const auto random = [&](Index time, Index heads, std::uint64_t part) {
      return Tensor::normal({bench.batch, time, heads, bench.dim}, bench.dtype, RandomKey{1}.fold(part));
    };
    q_ = random(bench.tq, bench.heads, 0);
    k_ = random(bench.tk, bench.kv_heads, 1);
    v_ = random(bench.tk, bench.kv_heads, 2);
    if (bench.backward) dout_ = random(bench.tq, bench.heads, 3);
    if (bench.random_mask) extras_.mask = random_mask(bench.tq, bench.tk, RandomKey{1}.fold(4));
    input_bytes_ = memory::usage().live;
  }

  Index input_bytes() const { return input_bytes_; }

  // One repetition: forward, and backward if asked for.
  Results run(AttentionKernel kernel, CallLog& log) const {
    if (!bench_.backward) return {.out = forward(q_, k_, v_, kernel, log).value(), .grads = {}};
    const Var q = Var::leaf(q_), k = Var::leaf(k_), v = Var::leaf(v_);
    Tape tape;
    const Var out = forward(q, k, v, kernel, log);
    {
      const CallTimer timer(log, kernel, Pass::backward);
      tape.backward(out, dout_);
    }
    return {.out = out.value(), .grads = {q.grad(), k.grad(), v.grad()}};
  }

 private:
  Var forward(const Var& q, const Var& k, const Var& v, AttentionKernel kernel, CallLog& log) const {
    const CallTimer timer(log, kernel, Pass::forward);
    return attention(q, k, v, kernel, bench_.options, extras_);
  }

  const BenchCase& bench_;
  Tensor q_, k_, v_, dout_;
  AttentionExtras extras_;
  Index input_bytes_ = 0;
};

// What is known before anything is timed.
struct Comparison {
  std::vector<AttentionKernel> fitting;
  std::vector<std::string> skipped;
  std::optional<double> out_diff = {}, grads_diff = {};  // missing unless there are two results
};

double largest_grad_difference(const Results& a, const Results& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.grads.size(); ++i) {
    largest = std::max(largest, largest_difference(a.grads[i], b.grads[i]));
  }
  return largest;
}

// Computes once with each kernel, which also warms up caches and memory.
Comparison compare_kernels(const BenchCase& bench, const Workload& workload) {
  Comparison comparison;
  std::vector<Results> all;
  CallLog log;
  for (const AttentionKernel kernel : bench.kernels) {
    try {
      all.push_back(workload.run(kernel, log));
    } catch (const memory::OutOfMemory& error) {
      if (!bench.skip_naive || kernel != AttentionKernel::naive) throw;
      comparison.skipped.push_back(fmt::format("{} is skipped: {}", type_name(kernel), error.what()));
      continue;
    }
    comparison.fitting.push_back(kernel);
    check_finite(all.back().out, kernel);
    for (const Tensor& grad : all.back().grads) check_finite(grad, kernel);
  }
  if (all.size() != 2) return comparison;
  comparison.out_diff = largest_difference(all[0].out, all[1].out);
  if (bench.backward) comparison.grads_diff = largest_grad_difference(all[0], all[1]);
  return comparison;
}

double measured_peak(Dtype dtype) {
  return with_float_type("bench", dtype, []<class T>() { return fma_gflops<T>(); });
}

struct Timing {
  std::vector<TimedCall> calls;
  double peak_gflops = 0;
};

// By turns, so that what slows down the machine for a while slows down all.
Timing time_by_turns(const BenchCase& bench, const Workload& workload,
                     const std::vector<AttentionKernel>& kernels) {
  constexpr int kFewest = 3;
  constexpr double kPeakShare = 0.1;  // of the time goes to the peak, so that short calls come often, too
  const double budget_us = 1e6 * bench.seconds * static_cast<double>(kernels.size());
  CallLog log;
  double peak = 0, peak_us = 0;
  for (int round = 0; round < kFewest || us_since(log.start) < budget_us; ++round) {
    for (const AttentionKernel kernel : kernels) {
      const double now_us = us_since(log.start);
      if (round < kFewest || peak_us < kPeakShare * now_us) {
        peak = std::max(peak, measured_peak(bench.dtype));
        peak_us += us_since(log.start) - now_us;
      }
      workload.run(kernel, log);
    }
  }
  return {.calls = std::move(log.calls), .peak_gflops = peak};
}

// Fills in what was measured, unless the kernel was left out.
void summarize(PassReport& pass, const std::vector<TimedCall>& calls, Index input_bytes) {
  std::vector<double> ms;
  Index peak = 0;
  for (const TimedCall& call : calls) {
    if (call.kernel != pass.kernel || call.pass != pass.pass) continue;
    ms.push_back(call.ms);
    peak = std::max(peak, call.peak_bytes - input_bytes);
  }
  if (ms.empty()) return;
  pass.ms = quartiles(std::move(ms));
  pass.peak_bytes = peak;
}

AttentionSizes sizes_of(const BenchCase& b) {
  return {.batch = b.batch,
          .heads = b.heads,
          .kv_heads = b.kv_heads,
          .tq = b.tq,
          .tk = b.tk,
          .dim = b.dim,
          .pairs = visible_pairs(b.tq, b.tk, b.options)};
}

}  // namespace

std::string_view type_name(AttentionKernel kernel) {
  return kernel == AttentionKernel::naive ? "normal" : "flash";
}

std::optional<double> PassReport::gflops() const {
  if (!ms) return std::nullopt;
  return 1e-6 * flops / ms->median;
}

BenchReport run_bench(const BenchCase& bench) {
  const Workload workload(bench);
  const Comparison comparison = compare_kernels(bench, workload);
  Timing timing = time_by_turns(bench, workload, comparison.fitting);

  BenchReport report = {.passes = {},
                        .calls = std::move(timing.calls),
                        .peak_gflops = timing.peak_gflops,
                        .skipped = comparison.skipped};
  const AttentionSizes sizes = sizes_of(bench);
  for (const AttentionKernel kernel : bench.kernels) {
    for (const Pass pass : {Pass::forward, Pass::backward}) {
      if (pass == Pass::backward && !bench.backward) continue;
      PassReport& p = report.passes.emplace_back();
      p.kernel = kernel;
      p.pass = pass;
      p.flops = attention_flops(sizes, pass);
      p.moved_bytes = moved_bytes(sizes, kernel, pass, bench.dtype, l2_bytes());
      p.max_abs_diff = pass == Pass::forward ? comparison.out_diff : comparison.grads_diff;
      summarize(p, report.calls, workload.input_bytes());
    }
  }
  return report;
}

}  // namespace tilegrad::train
