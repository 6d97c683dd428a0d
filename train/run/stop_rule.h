#pragma once

#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "tilegrad/train/run/evaluation.h"

/// When a run ends before its last step: --stop-when and --patience.
namespace tilegrad::train {

/// A figure of an evaluation, and the value from which on a run has learned enough.
struct StopRule {
  enum class Figure { accuracy, exact, val_loss };
  Figure figure = Figure::accuracy;
  double value = 0;

  /// At least the value; of a loss, at most.
  bool holds(const Evaluation& evaluation) const;
};

/// "accuracy=0.99", "exact=1" or "val_loss=0.5". Throws if the text is none of them.
StopRule parse_stop_rule(std::string_view text);

/// What the evaluations of a run have come to so far.
struct EvaluationHistory {
  Index count = 0;
  Evaluation last = {};
  double best_loss = std::numeric_limits<double>::infinity();
  Index best_step = 0;          ///< 0: none yet
  Index since_improvement = 0;  ///< evaluations since the best one

  /// Returns whether it is the best so far. A loss that is not a number never is.
  bool add(Index step, const Evaluation& evaluation);
};

/// Why a run with these evaluations is to end, in words: empty if it is not. An empty rule and a patience of 0
/// never end one.
std::string stop_reason(std::string_view rule, Index patience, const EvaluationHistory& history);

}  // namespace tilegrad::train
