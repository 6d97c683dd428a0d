#pragma once

#include <string>

#include "tilegrad/train/app/command.h"
#include "tilegrad/train/run/run_folder.h"

namespace tilegrad::train {

/// Which trained weights a command reads: a run, and --best.
struct WeightsOption {
  std::string run = {};
  bool best = false;

  void add(CLI::App& app) {
    app.add_option("run,--run", run, "folder of a trained run, or one of its weight files")->required();
    app.add_flag("--best", best, "use the weights with the lowest validation loss, kept by train --best");
  }
  /// Throws Error if there is no such file.
  SavedWeights find() const { return weights_at(run, best); }
};

}  // namespace tilegrad::train
