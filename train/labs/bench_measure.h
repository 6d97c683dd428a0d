#pragma once

#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tilegrad/train/measure/attention_cost.h"
#include "tilegrad/train/measure/profile.h"
#include "tilegrad/train/measure/statistics.h"

/// The measurement of `tilegrad bench`: both kernels in one process, their calls interleaved.
namespace tilegrad::train {

/// Of each kernel, however long they take.
inline constexpr std::size_t kFewestCalls = 3;
/// After how many times the time that was asked for it is looked whether the kernels can be told apart.
inline constexpr std::array<double, 3> kBenchLooks = {1, 2, 4};

struct BenchCase {
  AttentionProblem problem = {.heads = 2, .kv_heads = 2, .tq = 4096, .tk = 4096, .head_size = 512};
  bool random_mask = false;
  bool backward = false;
  std::vector<AttentionKernel> kernels = {AttentionKernel::naive, AttentionKernel::flash};
  bool profile = false;     ///< afterwards, because that takes time, too
  bool skip_naive = false;  ///< leave naive out if it does not fit into memory, instead of an Error
  /// For each kernel; at least three repetitions, and up to four times as long while undecided.
  double seconds = 1;
};

/// One pass of one kernel, measured once.
struct TimedCall {
  AttentionKernel kernel = AttentionKernel::flash;
  Phase phase = Phase::forward;
  double begin_us = 0;  ///< since the timing began
  double ms = 0;
  Index live_before = 0, live_after = 0;  ///< bytes of tracked memory
  Index peak_bytes = 0;                   ///< the most during the call
};

/// One pass of one kernel, over all repetitions. Numbers that were not measured, because the kernel was
/// skipped or has none to be compared with, are missing.
struct PassReport {
  AttentionKernel kernel = AttentionKernel::flash;
  Phase phase = Phase::forward;
  double flops = 0;
  double moved_bytes = 0;                   ///< by the model of attention_cost.h
  double peak_gflops = 0;                   ///< of the machine, the best that was ever measured
  std::vector<double> times_ms = {};        ///< of all repetitions, in order
  std::optional<Index> peak_bytes = {};     ///< tracked, beyond the inputs
  std::optional<double> max_abs_diff = {};  ///< between the two kernels: of out, or of dq, dk and dv

  std::optional<Quartiles> ms() const;
  std::optional<double> gflops() const;
  std::optional<double> fraction() const;  ///< of the machine's peak
};

struct BenchReport {
  std::vector<PassReport> passes;
  std::vector<TimedCall> calls;
  double peak_gflops = 0;           ///< of the machine, the best that was ever measured (best_peak.h)
  double measured_peak_gflops = 0;  ///< the best between the calls
  std::optional<double> share_of_others = {};  ///< of the processors' time during the calls (machine_load.h)
  /// After how many repetitions it was looked whether the kernels can be told apart (sequential_sign_test).
  std::vector<std::size_t> looks = {};
  /// Of each kernel that was timed, if asked for.
  std::vector<std::pair<AttentionKernel, Profile>> profiles = {};
  std::vector<std::string> skipped;  ///< a line for each kernel that was left out: why
};

/// Compares the results of the kernels, then times them interleaved: A B A B ... Throws if a result is not
/// finite or the two kernels disagree.
BenchReport run_bench(const BenchCase& bench);

}  // namespace tilegrad::train
