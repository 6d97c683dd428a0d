#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/train/measure/attention_cost.h"
#include "tilegrad/train/measure/statistics.h"

namespace tilegrad::train {

/// How the command line calls a kernel: "flash" or "normal".
std::string_view type_name(AttentionKernel kernel);

/// One problem, on random numbers, on which kinds of attention are timed.
struct BenchCase {
  Index batch = 1, heads = 2, kv_heads = 2, tq = 4096, tk = 4096, dim = 512;
  Dtype dtype = Dtype::f32;
  AttentionOptions options = {};
  bool random_mask = false;  ///< a boolean mask (1, 1, Tq, Tk) of fair coins
  bool backward = false;
  std::vector<AttentionKernel> kernels = {AttentionKernel::naive, AttentionKernel::flash};
  bool skip_naive = false;  ///< leave naive out if it does not fit into memory, instead of an Error
  double seconds = 1;       ///< for each kernel; three repetitions even if they take longer
};

/// One pass of one kernel, measured once.
struct TimedCall {
  AttentionKernel kernel = AttentionKernel::flash;
  Pass pass = Pass::forward;
  double begin_us = 0;  ///< since the timing began
  double ms = 0;
  Index live_before = 0, live_after = 0;  ///< bytes of tracked memory
  Index peak_bytes = 0;                   ///< the most during the call
};

/// What one kernel took for one pass. What was not measured, because the kernel was left out or has none to
/// be compared with, is missing.
struct PassReport {
  AttentionKernel kernel = AttentionKernel::flash;
  Pass pass = Pass::forward;
  double flops = 0;
  double moved_bytes = 0;  ///< by the model of attention_traffic.h
  std::optional<Quartiles> ms = {};
  std::optional<Index> peak_bytes = {};     ///< tracked, beyond the inputs
  std::optional<double> max_abs_diff = {};  ///< between the two kernels: of out, or of dq, dk and dv

  std::optional<double> gflops() const;
};

struct BenchReport {
  std::vector<PassReport> passes;
  std::vector<TimedCall> calls;
  double peak_gflops = 0;            ///< of the machine, measured between the calls
  std::vector<std::string> skipped;  ///< a line for each kernel that was left out: why
};

/// Compares the results of the kernels, then times them by turns: A B A B ... Throws if a result is not
/// finite.
BenchReport run_bench(const BenchCase& bench);

}  // namespace tilegrad::train
