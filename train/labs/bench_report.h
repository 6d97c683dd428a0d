#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tilegrad/train/labs/attention_bench.h"
#include "tilegrad/train/measure/chrome_trace.h"

/// How the measurements of `tilegrad bench` are shown.
namespace tilegrad::train {

/// The times of one length in a sweep; missing where a kernel was skipped.
struct SweepRow {
  Index time = 0;
  std::optional<double> naive_forward = {}, flash_forward = {};    ///< ms
  std::optional<double> naive_backward = {}, flash_backward = {};  ///< ms, of the backward pass alone
};
SweepRow sweep_row(Index time, const BenchReport& report);

/// Type, pass, times, GFLOP/s, fraction of the peak, memory, bytes moved by the model.
std::string bench_table(const BenchReport& report);
/// {"type", "pass", "threads", "ms", "gflops", "peak_gflops", "fraction", "peak_bytes", "max_abs_diff"}, null
/// where there is no such number.
nlohmann::ordered_json pass_json(const PassReport& pass, double peak_gflops);
/// An event for each timed call, and tracked memory as counters.
ChromeTrace bench_trace(const std::vector<TimedCall>& calls);

std::string sweep_table(const std::vector<SweepRow>& rows);
std::string sweep_csv(const std::vector<SweepRow>& rows);
/// From which length on flash is faster at every length of the sweep, in a sentence.
std::string sweep_verdict(const std::vector<SweepRow>& rows);

}  // namespace tilegrad::train
