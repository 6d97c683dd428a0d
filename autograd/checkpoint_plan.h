#pragma once

#include <vector>

#include "tilegrad/base/index.h"

namespace tilegrad {

/// Blocks [begin, end) run without keeping anything but the input of the first one, and run again when
/// backward arrives; `inside` are the segments that this second run checkpoints in turn. Blocks outside all
/// segments keep their activations.
struct Segment {
  Index begin = 0, end = 0;
  std::vector<Segment> inside = {};

  friend bool operator==(const Segment&, const Segment&) = default;
};
/// Disjoint, in order.
using Schedule = std::vector<Segment>;

/// `layers` blocks in `segments` segments of nearly equal length, of which the last one keeps its activations: running its
/// blocks again, at once, would cost time and save nothing. So there is no schedule for 0 segments, nor for 1.
Schedule even_segments(Index layers, Index segments);

/// What one stage of a model costs, in bytes on top of its input. Backward includes the gradients of output
/// and input.
struct StageCost {
  Index output = 0;
  Index saved = 0;          ///< by its tape between forward and backward, without input and output
  Index forward_peak = 0;   ///< of running it with nothing recorded
  Index recorded_peak = 0;  ///< of running it with everything recorded
  Index backward_peak = 0;  ///< of going back
  Index replay_peak = 0;    ///< of the backward of a checkpoint that holds it alone
  Index gradients = 0;      ///< of its parameters, which stay
  Index nanoseconds = 0;    ///< of one run forward
  Index ops = 0;            ///< that one run forward records
  /// The same of the run that a checkpoint makes if the stage is its last: without the ops whose outputs nobody reads.
  Index replay_nanoseconds = 0, replay_ops = 0;
  Index recomputed = 0;  ///< ops that its backward runs again by itself, as recomputed() does
};

/// A model as a chain. Prologue and epilogue are never checkpointed.
struct ChainCost {
  Index resident = 0;  ///< bytes that live all the time: parameters, optimiser, tokens
  StageCost prologue = {};
  std::vector<StageCost> blocks = {};
  StageCost epilogue = {};
};

struct ScheduleCost {
  Index peak = 0;         ///< bytes that a step's forward and backward need at most
  Index nanoseconds = 0;  ///< spent on running blocks again
  Index ops = 0;          ///< that run again
};
/// What a step costs under a schedule.
ScheduleCost cost_of(const ChainCost& chain, const Schedule& schedule);

/// The lowest peak that a schedule can have.
Index least_budget(const ChainCost& chain);

/// The schedule that spends the least time on running blocks again, among all whose peak is at most `budget`
/// bytes; of several, the one with the lowest peak. Throws if there is none, and names the smallest possible
/// budget.
///
/// Dynamic programming over stages [s, t] and the memory they may use, as in Beaumont et al., "Optimal
/// checkpointing for heterogeneous chains" (2019): the first stage is recorded, or stages [s, k] become a
/// segment, and the rest is a shorter chain with less memory. Instead of a grid of budgets, each [s, t] has
/// the whole staircase of (peak, time): its steps are few, because the blocks of a model have equal sizes.
Schedule plan_checkpoints(const ChainCost& chain, Index budget);

/// The peak and the time of every schedule that is best for some budget, beginning with the smallest budget.
std::vector<ScheduleCost> best_schedules(const ChainCost& chain);

}  // namespace tilegrad
