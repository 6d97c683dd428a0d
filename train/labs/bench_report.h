#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tilegrad/train/labs/bench_measure.h"

/// How the measurements of `tilegrad bench` are shown.
namespace tilegrad::train {

/// What will be timed and about how long that takes, at so many lengths.
std::string bench_plan(const BenchCase& bench, std::size_t lengths = 1);
/// Kernel and pass, times, GFLOP/s, fraction of the peak, memory, bytes moved by the model.
std::string bench_table(const BenchReport& report);
/// A line for each pass, of an object with "type", "pass", "threads", "ms", "gflops", "peak_gflops",
/// "fraction", "peak_bytes", "max_abs_diff" and "share_of_others" (of the processors' time, in all passes); null where
/// there is no such number.
std::string bench_json_lines(const BenchReport& report);
/// Why kernels move as much as each other, where they do and both are asked for, a line for each pass (whys.h).
std::string bench_whys(const BenchCase& bench);
/// Which kernel is faster, as far as the repetitions tell; empty unless both were timed.
std::string bench_finding(const BenchReport& report);
/// Writes a trace with an event for each timed call, and tracked memory as counters.
void write_bench_trace(const std::filesystem::path& file, const std::vector<TimedCall>& calls);

/// The times of one length in a sweep, ms of all repetitions; empty where a kernel was skipped.
struct SweepRow {
  Index time = 0;
  std::vector<double> naive_forward = {}, flash_forward = {};
  std::vector<double> naive_backward = {}, flash_backward = {};  ///< of the backward pass alone
  std::vector<std::size_t> looks = {};                           ///< BenchReport::looks
};
SweepRow sweep_row(Index time, const BenchReport& report);

std::string sweep_table(const std::vector<SweepRow>& rows);
std::string sweep_csv(const std::vector<SweepRow>& rows);
/// The length from which on flash is distinguishably faster at every length of the sweep, in a sentence.
std::string sweep_verdict(const std::vector<SweepRow>& rows);

}  // namespace tilegrad::train
