#pragma once

#include <string>
#include <vector>

#include "tilegrad/train/labs/child.h"
#include "tilegrad/train/measure/attention_cost.h"

/// The measurements of `tilegrad lab flash`, each made in a child.
namespace tilegrad::train {

/// A problem with as many key/value heads as heads, square unless it says otherwise.
struct FlashTask {
  Index batch = 1, heads = 1, seq = 1, head_size = 1;
  bool causal = false;
  Dtype dtype = Dtype::f32;
  AttentionKernel kernel = AttentionKernel::flash;  ///< not read by measure_accuracy
  Index memory_limit = 0;                           ///< bytes; 0: the program's own
  std::uint64_t seed = 1;
  std::string mine =
      {};  ///< folder of a course whose attention is measured instead of the kernel's; "": none
  Index tile_q = 0, tile_k = 0;               ///< rows of a tile of flash; 0: it chooses
  Index kv_seq = 0;                           ///< keys; 0: as many as queries
  Index window_left = -1, window_right = -1;  ///< keys that a query sees on either side; -1: all
  double input_std = 1;  ///< standard deviation of q, k, v and dout; scores are scaled to be those of 1

  AttentionProblem problem() const;
};

/// What one kernel took for forward alone, and for forward and backward ("step").
struct AttentionCosts {
  bool fits = true;                                     ///< into memory; if not, nothing else is known
  Index forward_peak = 0, step_peak = 0, peak_rss = 0;  ///< bytes
  std::vector<double> forward_ms = {}, step_ms = {};
};
AttentionCosts measure_attention(const FlashTask& task, const CallTimer& timer);

/// How far naive and flash are apart, and each from naive attention in f64: Inf where a result is Inf or NaN.
struct TensorErrors {
  std::string tensor = {};  ///< out, dq, dk or dv
  double max_abs_difference = 0, max_rel_difference = 0, naive_error = 0, flash_error = 0;
};
struct Accuracy {
  std::vector<TensorErrors> tensors = {};
};
Accuracy measure_accuracy(const FlashTask& task);

/// How far flash, with all tensors stored in the task's type, is from naive attention in f64 on the numbers that were not
/// rounded to it. The gradients are those of the backward pass that reads q, k, v, out and dout as they are stored.
struct FormatErrors {
  /// The largest difference divided by the largest element; Inf where a result is Inf or NaN.
  double out = 0, dq = 0, dk = 0, dv = 0;
  Index overflows = 0;  ///< finite numbers that became Inf when inputs, out and gradients were stored
};
FormatErrors measure_format(const FlashTask& task);

/// What the machine can do at best; the lists hold several tries.
struct MachineSpeeds {
  std::vector<double> f32_gflops = {}, f64_gflops = {}, gbytes_per_s = {};
  Index l2_bytes = 0;
  std::string processor = {};
};
MachineSpeeds measure_machine(const FlashTask& task);

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(FlashTask, batch, heads, seq, head_size, causal, dtype, kernel,
                                   memory_limit, seed, mine, tile_q, tile_k, kv_seq, window_left,
                                   window_right, input_std)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(AttentionCosts, fits, forward_peak, step_peak, peak_rss,
                                                forward_ms, step_ms)
// JSON has no Inf: what reads these takes null for it.
void to_json(nlohmann::json& json, const FormatErrors& errors);
void from_json(const nlohmann::json& json, FormatErrors& errors);
void to_json(nlohmann::json& json, const TensorErrors& errors);
void from_json(const nlohmann::json& json, TensorErrors& errors);
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Accuracy, tensors)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(MachineSpeeds, f32_gflops, f64_gflops, gbytes_per_s, l2_bytes, processor)

}  // namespace tilegrad::train
