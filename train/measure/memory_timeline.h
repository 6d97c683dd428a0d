#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tilegrad/base/index.h"
#include "tilegrad/train/measure/phase.h"

/// memory.jsonl: how the live bytes rise and fall through one training step. One change per line, in order of
/// time: ms since the step began, op, phase, live_bytes. The Profiler records it.
namespace tilegrad::train {

struct MemoryEvent {
  double ms = 0;
  Index op = 0;  ///< ops that had begun, those inside others too; the same whenever the settings are
  Phase phase = Phase::forward;
  Index live_bytes = 0;  ///< after the change
};
using MemoryTimeline = std::vector<MemoryEvent>;

void write_memory_timeline(const std::filesystem::path& file, const MemoryTimeline& timeline);

/// Empty if the file is missing. Malformed lines are left out; a warning says so.
MemoryTimeline read_memory_timeline(const std::filesystem::path& file, std::vector<std::string>& warnings);

}  // namespace tilegrad::train
