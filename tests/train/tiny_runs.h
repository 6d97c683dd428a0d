#pragma once

#include <string>

#include "tilegrad/train/measure/profiler.h"
#include "tilegrad/train/run/presets.h"
#include "tilegrad/train/run/trainer.h"

/// Training in no time, without the program.
namespace tilegrad::train {

inline RunConfig tiny_config() {
  RunConfig config = task_preset(data::TaskKind::sort);
  config.model.layers = 2;
  config.model.width = 12;
  config.batch = 4;
  config.out = "unused";
  return config;
}

inline RunConfig with_checkpoint(const std::string& checkpoint) {
  RunConfig config = tiny_config();
  config.checkpoint = parse_checkpoint_policy(checkpoint);
  return config;
}

inline Profile profile_of_step(const RunConfig& config) {
  Trainer trainer(config);
  Profiler profiler;
  trainer.step(&profiler);
  return profiler.profile("step");
}

}  // namespace tilegrad::train
