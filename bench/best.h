#pragma once

#include <benchmark/benchmark.h>

namespace tilegrad::bench {

/// Wall time, and over the repetitions "min" and "max" of everything: other programs can only slow a machine
/// down, so the shortest time and the highest speed are what repeats from run to run.
void report_best(benchmark::internal::Benchmark* family);

/// Runs the chosen benchmarks and shows what --benchmark_format asks for; of the repetitions' statistics only
/// min and max. Returns the exit code: 1 if a benchmark refused to run.
int run_and_show_best();

}  // namespace tilegrad::bench
