#include "bench/attention_bench.h"

#include <benchmark/benchmark.h>

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
  Problem problem;
  std::vector<std::int64_t> causal = {0, 1};
  std::vector<std::int64_t> threads = {1, 2};
  Dtype dtype = Dtype::f32;
  bool backward = true;
};

Problem square(Index heads, Index time, Index dim) {
  return {.heads = heads, .kv_heads = heads, .tq = time, .tk = time, .dim = dim};
}

Problem grouped(Index kv_heads) {
  Problem p = square(8, 4096, 64);
  p.kv_heads = kv_heads;
  return p;
}

Problem windowed(Index window) {
  Problem p = square(2, 16384, 64);
  p.window = window;
  return p;
}

Problem heads_first() {
  Problem p = grouped(8);
  p.heads_first = true;
  return p;
}

// A layer of the model that `tilegrad train --text` trains.
Problem training_step() {
  Problem p = square(4, 64, 32);
  p.batch = 12;
  return p;
}

Problem decode() {
  Problem p = square(8, 16384, 64);
  p.tq = 1;
  return p;
}

std::vector<Row> rows() {
  std::vector<Row> rows;
  for (const auto& [time, heads] : std::map<Index, Index>{{64, 8}, {256, 16}, {1024, 8}, {4096, 2}}) {
    for (const Index dim : {32, 64, 128}) {
      rows.push_back({fmt::format("t{}_d{}", time, dim), square(heads, time, dim)});
    }
  }
  rows.push_back({"t16384_d512", square(2, 16384, 512), {0, 1}, {2}});
  rows.push_back({"mha", grouped(8), {1}});
  rows.push_back({"gqa", grouped(2), {1}});
  rows.push_back({"mqa", grouped(1), {1}});
  rows.push_back({"heads_first", heads_first(), {1}});
  rows.push_back({"window_none", square(2, 16384, 64), {1}});
  rows.push_back({"window_256", windowed(256), {1}});
  rows.push_back({"training_step", training_step(), {1}});
  rows.push_back({"f64", square(4, 2048, 64), {0, 1}, {1, 2}, Dtype::f64});
  rows.push_back({.name = "decode", .problem = decode(), .causal = {0}, .backward = false});
  return rows;
}

Counter rate(double amount) { return {amount, Counter::kIsIterationInvariantRate}; }

// A single query is nothing but a read of all keys and values, so memory is what bounds it.
bool reads_only(const Problem& problem) { return problem.tq == 1; }

// What the problem asks of the machine, in GFLOP or GB.
template <class T>
double work(const Workload<T>& workload, Pass pass) {
  const Problem& problem = workload.problem();
  if (!reads_only(problem)) return 1e-9 * flops(problem, pass);
  return 1e-9 * static_cast<double>(workload.keys_and_values().size_bytes());
}

// The most of it that the machine has done in a second so far, on as many threads: what a neighbour took from
// one measurement, it did not take from all.
template <class T>
double measure_peak(const Workload<T>& workload) {
  constexpr int kTimes = 20;
  static std::map<std::pair<bool, int>, double> highest;
  const bool reads = reads_only(workload.problem());
  double& peak = highest[{reads, kernels::threads()}];
  for (int i = 0; i < kTimes; ++i) {
    peak =
        std::max(peak, reads ? read_bandwidth(std::as_bytes(workload.keys_and_values())) : fma_gflops<T>());
  }
  return peak;
}

// Whether the threads had to share processors, with each other or with other programs: then the peak is too
// low to hold anything against it.
template <class T>
bool is_crowded(int threads, double peak) {
  const kernels::ThreadScope one(1);
  return peak < 0.75 * threads * fma_gflops<T>();
}

// What all repetitions of a benchmark share: made, compared with naive attention and held against one peak
// before the first of them.
template <class T>
struct Prepared {
  Workload<T> workload;
  Pass pass;
  bool right;
  double peak;
  bool crowded;

  Prepared(const Problem& problem, Pass pass_)
      : workload(problem),
        pass(pass_),
        right(workload.agrees_with_naive(pass)),
        peak(measure_peak(workload)),
        crowded(!reads_only(problem) && is_crowded<T>(problem.threads, peak)) {}

  bool is_for(const Problem& problem, Pass other) const {
    return workload.problem() == problem && pass == other;
  }
};

template <class T>
Prepared<T>& prepare(const Problem& problem, Pass pass) {
  static std::unique_ptr<Prepared<T>> last;
  if (!last || !last->is_for(problem, pass)) {
    last.reset();  // before the next one takes memory
    last = std::make_unique<Prepared<T>>(problem, pass);
  }
  return *last;
}

template <class T>
void time_calls(State& state, const Problem& problem, Pass pass) {
  const kernels::ThreadScope team(problem.threads);
  Prepared<T>& prepared = prepare<T>(problem, pass);
  if (!prepared.right) {
    state.SkipWithError("flash and naive attention differ");
    return;
  }
  for (auto _ : state) prepared.workload.run(pass);

  const double once = work(prepared.workload, pass);
  state.counters[reads_only(problem) ? "GB/s" : "GFLOP/s"] = rate(once);
  state.counters["peak"] = prepared.peak;
  state.counters["of_peak"] = rate(once / prepared.peak);
  if (prepared.crowded) state.counters["crowded"] = 1;
  state.SetLabel(fmt::format("{}, {}", to_string(dtype_of<T>), describe(problem)));
}

void add(const Row& row, Pass pass) {
  const auto run = [row, pass](State& state) {
    Problem problem = row.problem;
    problem.causal = state.range(0) != 0;
    problem.threads = static_cast<int>(state.range(1));
    with_float_type("bench", row.dtype, [&]<class T>() { time_calls<T>(state, problem, pass); });
  };
  const std::string name = row.name + (pass == Pass::forward ? "/forward" : "/backward");
  benchmark::RegisterBenchmark(name.c_str(), run)
      ->ArgNames({"causal", "threads"})
      ->ArgsProduct({row.causal, row.threads})
      ->Unit(benchmark::kMillisecond)
      ->Apply(keep_best);
}

}  // namespace

void add_attention_benchmarks() {
  for (const Row& row : rows()) {
    add(row, Pass::forward);
    if (row.backward) add(row, Pass::backward);
  }
}

}  // namespace tilegrad::bench
