#include "bench/attention_bench.h"

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/attention_workload.h"
#include "bench/best.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/measure/speed.h"

namespace tilegrad::bench {

namespace {

using benchmark::Counter;
using benchmark::State;

// A family of benchmarks: one problem with each of these masks on each of these numbers of threads.
struct Row {
  std::string name;
  AttentionProblem problem;
  std::vector<std::int64_t> causal = {0, 1};
  std::vector<std::int64_t> threads = {1, 2};
  Layout layout = Layout::time_first;
  bool backward = true;
};

AttentionProblem square(Index heads, Index time, Index head_size) {
  return {.heads = heads, .kv_heads = heads, .tq = time, .tk = time, .head_size = head_size};
}

AttentionProblem grouped(Index kv_heads) {
  AttentionProblem p = square(8, 4096, 64);
  p.kv_heads = kv_heads;
  return p;
}

AttentionProblem windowed(Index window) {
  AttentionProblem p = square(2, 16384, 64);
  p.options.window.left = window;
  return p;
}

// A layer of the model that `tilegrad train --text` trains.
AttentionProblem training_step() {
  AttentionProblem p = square(4, 64, 32);
  p.batch = 12;
  return p;
}

AttentionProblem decode() {
  AttentionProblem p = square(8, 16384, 64);
  p.tq = 1;
  return p;
}

AttentionProblem in_f64() {
  AttentionProblem p = square(4, 2048, 64);
  p.dtype = Dtype::f64;
  return p;
}

std::vector<Row> rows() {
  std::vector<Row> rows;
  for (const auto& [time, heads] : std::map<Index, Index>{{64, 8}, {256, 16}, {1024, 8}, {4096, 2}}) {
    for (const Index head_size : {32, 64, 128}) {
      rows.push_back({fmt::format("t{}_d{}", time, head_size), square(heads, time, head_size)});
    }
  }
  rows.push_back({"t16384_d512", square(2, 16384, 512), {0, 1}, {2}});
  rows.push_back({"mha", grouped(8), {1}});
  rows.push_back({"gqa", grouped(2), {1}});
  rows.push_back({"mqa", grouped(1), {1}});
  rows.push_back({"heads_first", grouped(8), {1}, {1, 2}, Layout::heads_first});
  rows.push_back({"window_none", square(2, 16384, 64), {1}});
  rows.push_back({"window_256", windowed(256), {1}});
  rows.push_back({"training_step", training_step(), {1}});
  rows.push_back({"f64", in_f64()});
  rows.push_back({.name = "decode", .problem = decode(), .causal = {0}, .backward = false});
  return rows;
}

Counter rate(double amount) { return {amount, Counter::kIsIterationInvariantRate}; }

// A single query is nothing but a read of all keys and values, so memory is what bounds it.
bool reads_only(const AttentionProblem& problem) { return problem.tq == 1; }

// The most that the machine has done in a second so far, on as many threads: GFLOP, or GB of these keys and
// values. Another program may have slowed down one measurement, but hardly all of them.
template <class T>
double measure_peak(const Workload<T>& workload, bool reads) {
  constexpr int kTimes = 20;
  static std::map<int, double> highest_bandwidth;  // by number of threads
  double& bandwidth = highest_bandwidth[kernels::threads()];
  double gflops = 0;
  for (int i = 0; i < kTimes; ++i) {
    if (reads) {
      bandwidth = std::max(bandwidth, read_bandwidth(std::as_bytes(workload.keys_and_values())));
    } else {
      gflops = highest_fma_gflops<T>();
    }
  }
  return reads ? bandwidth : gflops;
}

// Whether the threads had to share processors, with each other or with other programs: then the peak is too
// low to compare anything with it.
template <class T>
bool is_crowded(double peak) {
  const int threads = kernels::threads();
  const kernels::ThreadScope one(1);
  return peak < 0.75 * threads * fma_gflops<T>();
}

// One benchmark: a row with its arguments.
struct Case {
  std::string name;  // of the row, the pass and the arguments
  AttentionProblem problem;
  Layout layout;
  Phase phase;
};

// What all repetitions of a benchmark share: made, compared with naive attention and measured against one
// peak before the first of them.
template <class T>
struct Prepared {
  std::string name;
  Workload<T> workload;
  bool right;
  double work;  // GFLOP or GB
  double peak;  // of it a second
  bool crowded;

  explicit Prepared(const Case& c)
      : name(c.name),
        workload(c.problem, c.layout),
        right(workload.agrees_with_naive(c.phase)),
        work(1e-9 * (reads_only(c.problem) ? static_cast<double>(workload.keys_and_values().size_bytes())
                                           : train::attention_flops(c.problem, c.phase))),
        peak(measure_peak(workload, reads_only(c.problem))),
        crowded(!reads_only(c.problem) && is_crowded<T>(peak)) {}
};

template <class T>
Prepared<T>& prepare(const Case& c) {
  static std::unique_ptr<Prepared<T>> last;
  if (!last || last->name != c.name) {
    last.reset();  // before the next one takes memory
    last = std::make_unique<Prepared<T>>(c);
  }
  return *last;
}

template <class T>
void time_calls(State& state, const Case& c) {
  Prepared<T>& prepared = prepare<T>(c);
  if (!prepared.right) {
    state.SkipWithError("flash and naive attention differ");
    return;
  }
  for (auto _ : state) prepared.workload.run(c.phase);

  state.counters[reads_only(c.problem) ? "GB/s" : "GFLOP/s"] = rate(prepared.work);
  state.counters["peak"] = prepared.peak;
  state.counters["of_peak"] = rate(prepared.work / prepared.peak);
  if (prepared.crowded) state.counters["crowded"] = 1;
  state.SetLabel(fmt::format("{}, {}", to_string(c.problem.dtype), describe(c.problem, c.layout)));
}

void add(const Row& row, Phase phase) {
  const std::string name = fmt::format("{}/{}", row.name, train::to_string(phase));
  const auto run = [row, phase, name](State& state) {
    const kernels::ThreadScope team(static_cast<int>(state.range(1)));
    Case c = {.name = fmt::format("{}/{}/{}", name, state.range(0), state.range(1)),
              .problem = row.problem,
              .layout = row.layout,
              .phase = phase};
    c.problem.options.causal = state.range(0) != 0;
    with_float_type("bench", c.problem.dtype, [&]<class T>() { time_calls<T>(state, c); });
  };
  benchmark::RegisterBenchmark(name.c_str(), run)
      ->ArgNames({"causal", "threads"})
      ->ArgsProduct({row.causal, row.threads})
      ->Unit(benchmark::kMillisecond)
      ->Apply(report_best);
}

}  // namespace

void add_attention_benchmarks() {
  for (const Row& row : rows()) {
    add(row, Phase::forward);
    if (row.backward) add(row, Phase::backward);
  }
}

}  // namespace tilegrad::bench
