#pragma once

#include <vector>

#include "tilegrad/train/report/loaded_run.h"
#include "tilegrad/train/report/page.h"

namespace tilegrad::train {

/// How runs learned and what they took: loss, accuracy, memory, time. Runs that differ in nothing but their seed
/// are one curve, their mean, in a band.
std::vector<Chart> run_charts(const std::vector<LoadedRun>& runs);

}  // namespace tilegrad::train
