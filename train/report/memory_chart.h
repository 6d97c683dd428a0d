#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tilegrad/train/measure/memory_timeline.h"
#include "tilegrad/train/report/page.h"

namespace tilegrad::train {

/// The live bytes of each run through one training step. Forward and backward have the same width for every
/// run, whatever time they took, so that the runs can be compared; within them x is time. The area below a
/// recomputation is shaded.
Chart memory_chart(const std::vector<std::pair<std::string, MemoryTimeline>>& timelines);

}  // namespace tilegrad::train
