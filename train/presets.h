#pragma once

#include "train/run_config.h"

namespace tilegrad::train {

/// The settings that solve a task in under two minutes on two cores: the defaults of --task.
RunConfig task_preset(data::TaskKind kind);

/// The defaults of --text: the usual small setting for byte-level modelling on a CPU, which reaches a
/// validation loss below 1.88 on tiny Shakespeare.
RunConfig text_preset();

}  // namespace tilegrad::train
