#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "tilegrad/base/process.h"
#include "tilegrad/train/measure/environment.h"
#include "tilegrad/train/measure/memory_timeline.h"
#include "tilegrad/train/measure/profile.h"
#include "tilegrad/train/run/metrics.h"
#include "tilegrad/train/run/run_config.h"

namespace tilegrad::train {

/// A run as its folder describes it.
struct LoadedRun {
  std::string name;
  ChildResult process = {};  ///< what `compare` saw of its process; zeros if it is not known
  RunConfig config = {};
  Index parameters = 0;
  Index kv_bytes_per_token = 0;
  Metrics metrics = {};
  MetricsSummary summary = {};
  double ended = 0;  ///< when metrics.jsonl was last written, in seconds since 1970
  MemoryTimeline memory = {};
  Profile profile = {};  ///< without calls if there is none
};

std::vector<std::string> names_of(const std::vector<LoadedRun>& runs);

/// The runs of some folders, in order.
struct LoadedRuns {
  std::vector<LoadedRun> runs = {};
  std::vector<std::pair<std::string, Environment>> environments = {};  ///< of each folder
  std::vector<std::string> warnings = {};                              ///< what is missing or damaged
};

/// Reads one run. Throws Error if its config.json cannot be read; anything else that is missing or damaged is
/// left out, with a sentence in `warnings`.
LoadedRun load_run(const std::filesystem::path& folder, std::vector<std::string>& warnings);

/// Reads the runs of each folder: its own, or those that its compare.json names, or those of the folders in
/// it. Throws if a folder holds none.
LoadedRuns load_runs(const std::vector<std::filesystem::path>& folders);

}  // namespace tilegrad::train
