#pragma once

#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "tilegrad/train/measure/profile.h"
#include "tilegrad/train/run/trainer.h"

namespace tilegrad::train {

/// What a call of the program did for a run.
struct Outcome {
  std::vector<double> ms;  ///< of each step
  StepReport last;
  StepReport highest;  ///< the step that needed most memory
  double train_loss = 0;
  std::optional<Evaluation> evaluation;
  std::optional<Profile> profile;
  bool interrupted = false;
  std::string stopped = {};  ///< why it ended before its last step; empty if it did not
};

void print_summary(std::ostream& out, Trainer& trainer, const Outcome& outcome);

/// The same as one JSON object; what is not known is null.
void print_summary_json(std::ostream& out, Trainer& trainer, const Outcome& outcome);

}  // namespace tilegrad::train
