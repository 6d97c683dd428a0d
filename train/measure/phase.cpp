#include "tilegrad/train/measure/phase.h"

#include "tilegrad/autograd/tape.h"

namespace tilegrad::train {

std::string_view to_string(Phase phase) {
  switch (phase) {
    case Phase::forward:
      return "forward";
    case Phase::backward:
      return "backward";
    case Phase::recompute:
      return "recompute";
    case Phase::update:
      return "update";
  }
  return "?";
}

Phase phase_of_tapes() {
  switch (Tape::pass()) {
    case Tape::Pass::forward:
      return Phase::forward;
    case Tape::Pass::backward:
      return Phase::backward;
    case Tape::Pass::recompute:
      return Phase::recompute;
  }
  return Phase::forward;
}

}  // namespace tilegrad::train
