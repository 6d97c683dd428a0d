#pragma once

#include <optional>
#include <string>

#include "tilegrad/train/labs/lab.h"
#include "tilegrad/train/measure/profiler.h"

/// What --profile adds to a lab. Two files for each thing that is timed, in the folder "profiles" beside the
/// results: <variant>-<what>.json opens in Perfetto, <variant>-<what>.ops.json is the table.
namespace tilegrad::train {

/// In the process that measures: profiles the calls of `what` if the task has a "profile".
class LabProfile {
 public:
  LabProfile(const Json& task, const std::string& what);
  void begin();
  void end();
  /// The calls that are over, into the files.
  void write() const;

 private:
  std::string stem_;  // of the files; empty: nothing is profiled
  Profiler profiler_;
  std::optional<Profiler::Call> call_;
  Index calls_ = 0;
};

/// Forgets the profiles of an earlier lab in the folder.
void clear_profiles(const LabOptions& options);

/// The task with its "profile", if profiles are wanted and it has a "label", the name of its variant.
Json with_profile(const LabOptions& options, Json task);

/// The folder of the profiles.
std::filesystem::path profile_folder(const LabOptions& options);

/// The tables in it.
std::vector<Table> profile_tables(const LabOptions& options);

}  // namespace tilegrad::train
