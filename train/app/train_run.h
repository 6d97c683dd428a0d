#pragma once

#include <string>

#include "tilegrad/train/report/console.h"
#include "tilegrad/train/run/run_config.h"

namespace tilegrad::train {

/// How one call of the program goes about a run; nothing here changes its losses or weights.
struct RunControl {
  bool resume = false;       ///< continue from what config.out holds
  bool overwrite = false;    ///< replace the run that config.out holds, as soon as the new one has saved
  Index stop_after = 0;      ///< stop, as Ctrl-C would, after this many steps; 0: when all are done
  bool quiet = false;        ///< show no progress
  bool json = false;         ///< progress and summary are JSON objects, one a line
  bool summary = true;       ///< print one at the end
  bool profile = false;      ///< report what ops cost, in a few of the first steps
  bool tensorboard = false;  ///< write event files for TensorBoard
  std::string label = {};    ///< in front of each line of progress
};

/// Trains, writes the files of RunFolder, and prints a summary. Returns kSuccess, or kInterrupted after
/// Ctrl-C. Throws if config.out holds results that neither `resume` nor `overwrite` is about, or if another
/// process writes there.
int run_training(const RunConfig& config, const RunControl& control, const Console& console);

}  // namespace tilegrad::train
