#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tilegrad/train/measure/environment.h"
#include "tilegrad/train/measure/memory_timeline.h"
#include "tilegrad/train/measure/profile.h"
#include "tilegrad/train/run/metrics.h"
#include "tilegrad/train/run/run_config.h"

namespace tilegrad::train {

/// A run as its folder tells it.
struct ReportedRun {
  std::string name;
  RunConfig config = {};
  Metrics metrics = {};
  MetricsSummary summary = {};
  MemoryTimeline memory = {};
  Profile profile = {};  ///< without calls if there is none
  Index parameters = 0;
  Index peak_rss = 0;  ///< 0: not known
};

/// What was found in some folders.
struct ReportedRuns {
  std::vector<ReportedRun> runs = {};
  std::vector<std::pair<std::string, Environment>> environments = {};  ///< of each folder
  std::vector<std::string> damage = {};
};

/// Reads the runs of each folder: its own, or those that its compare.json names, or those of the folders in
/// it. Throws if a folder holds none.
ReportedRuns read_runs(const std::vector<std::filesystem::path>& folders);

}  // namespace tilegrad::train
