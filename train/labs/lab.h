#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "tilegrad/base/error.h"
#include "tilegrad/train/measure/machine_load.h"

/// What a command has to know of every lab. A lab measures each of its variants in a process of its own, so
/// that the peak of physical memory belongs to that variant alone, and says in one line what it found.
namespace tilegrad::train {

struct LabOptions {
  std::string out;                                   ///< folder for the results
  std::filesystem::path program = "/proc/self/exe";  ///< `tilegrad`, which measures each variant
  int rounds = 6;                        ///< of timed measurements; fewer decide nothing (sign_test)
  int threads = 0;                       ///< of each measurement; 0: one for each processor
  bool profile = false;                  ///< report what each op costs, in all that is timed
  bool explain = false;                  ///< print what each column means
  std::string command = {};              ///< that repeats the lab
  std::optional<MachineLoad> load = {};  ///< of others since the lab began
};

/// Ctrl-C ended a measurement, and with it the lab.
class Interrupted : public Error {
 public:
  using Error::Error;
};

/// What a child does: `folder` holds the task, and will hold the result.
void run_measurement(const std::filesystem::path& folder);

/// Deletes the profiles of an earlier lab in the folder of results.
void clear_profiles(const LabOptions& options);

/// The folder of the profiles.
std::filesystem::path profile_folder(const LabOptions& options);

}  // namespace tilegrad::train
