#pragma once

#include <vector>

#include "tilegrad/autograd/checkpoint_plan.h"
#include "tilegrad/nn/transformer.h"
#include "tilegrad/train/labs/child.h"

namespace tilegrad {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Segment, begin, end, inside)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(StageCost, output, saved, forward_peak, recorded_peak, backward_peak,
                                   replay_peak, gradients, nanoseconds, ops, replay_nanoseconds, replay_ops,
                                   recomputed)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ChainCost, resident, prologue, blocks, epilogue)

}  // namespace tilegrad

namespace tilegrad::nn {

NLOHMANN_JSON_SERIALIZE_ENUM(Recompute, {{Recompute::nothing, "none"},
                                         {Recompute::attention, "attention"},
                                         {Recompute::mlp, "mlp"},
                                         {Recompute::elementwise, "elementwise"}})

}  // namespace tilegrad::nn

/// The measurements of `tilegrad lab checkpoint`, each made in a child.
namespace tilegrad::train {

/// A model, and what of it is recomputed.
struct CheckpointTask {
  Index layers = 1, seq = 1, width = 1, heads = 1, batch = 1;
  nn::Recompute recompute = nn::Recompute::nothing;  ///< a part of every block
  Schedule schedule = {};
  std::uint64_t seed = 1;

  nn::TransformerConfig model() const;
};

/// What each stage of the model costs.
ChainCost measure_chain(const CheckpointTask& task);

/// One training step under the schedule.
struct StepCosts {
  double loss = 0;
  std::uint64_t gradients = 0;   ///< a hash of all their bits
  Index peak = 0, peak_rss = 0;  ///< bytes
  std::vector<double> step_ms = {};
  double page_faults = 0;  ///< of a step, among those that were timed
};
StepCosts measure_schedule(const CheckpointTask& task, const CallTimer& timer);

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(CheckpointTask, layers, seq, width, heads, batch, recompute, schedule,
                                   seed)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(StepCosts, loss, gradients, peak, peak_rss, step_ms,
                                                page_faults)

}  // namespace tilegrad::train
