#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tilegrad/train/labs/lab.h"
#include "tilegrad/train/measure/profiler.h"
#include "tilegrad/train/report/table.h"

/// What --profile adds to a lab. Two files for each thing that is timed, in the folder "profiles" next to the
/// results: <variant>-<what>.json opens in Perfetto, <variant>-<what>.ops.json is the table.
namespace tilegrad::train {

/// In the process that measures: profiles the calls of `what`, unless `profile` is empty.
class LabProfile {
 public:
  LabProfile(const std::string& profile, const std::string& what);
  void begin();
  void end();
  /// Writes the files of the finished calls.
  void write() const;

 private:
  std::string stem_;  // of the files; empty: nothing is profiled
  Profiler profiler_;
  std::optional<Profiler::Call> call_;
  Index calls_ = 0;
};

/// The beginning of the profiles' names of a variant; empty if the variant is. Makes the folder.
std::string profile_stem(const LabOptions& options, const std::string& variant);

/// The tables in the folder of the profiles.
std::vector<Table> profile_tables(const LabOptions& options);

}  // namespace tilegrad::train
