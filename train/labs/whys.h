#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tilegrad/autograd/checkpoint_plan.h"
#include "tilegrad/train/measure/attention_cost.h"
#include "tilegrad/train/measure/statistics.h"
#include "tilegrad/train/report/table.h"

/// Why results are other than one may have expected. Every reason is computed from the figures, and there is none where
/// the result is the usual one, or the figures do not explain it.
namespace tilegrad::train {

struct Why {
  std::string result, reason;
};

/// Why flash moves about as many bytes as naive, or more, in this pass, by the model of attention_cost.h.
std::optional<Why> why_as_many_bytes(const AttentionProblem& problem, Phase phase, Index cache_bytes);

/// Why `segments` equal segments have a higher peak than one for each block.
std::optional<Why> why_segments_need_more(const ChainCost& chain, Index segments, Index peak_of_segments,
                                          Index peak_of_blocks);

/// What recomputing took of a step.
struct RecomputingTimes {
  std::string name = {};  ///< of the variant
  Index ops = 0;          ///< recomputed
  /// Time of these ops, as a part of a step that recomputes nothing, if it was predicted.
  std::optional<double> predicted = {};
  double measured = 0;  ///< by how much a step takes longer, as a part of that; less than 0 if it is shorter
  double spread = 0;    ///< distance of the quartiles of its times, as a part of that
  double faults = 0, faults_of_none = 0;           ///< page faults a step, of this and of the other one
  Verdict verdict = Verdict::not_distinguishable;  ///< of its times against those of the other one
};
/// Why a step that recomputes takes no more time than one that does not.
std::optional<Why> why_no_slower(const RecomputingTimes& times);

/// A table of them, a row each.
Table table_of(const std::vector<Why>& whys);

}  // namespace tilegrad::train
