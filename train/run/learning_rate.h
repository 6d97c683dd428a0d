#pragma once

#include "tilegrad/train/run/run_config.h"

namespace tilegrad::train {

/// The learning rate of a step from 0 on. A line up to lr during warm-up, and then, down to min_lr,
///   cosine    half a cosine
///   linear    a line
///   constant  no descent: lr to the end
///   wsd       lr ("stable"), and a line down in the last `decay` steps (warm-up, stable, decay; Hu et al., 2024)
double learning_rate(const RunConfig& config, Index step);

}  // namespace tilegrad::train
