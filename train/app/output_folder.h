#pragma once

#include <filesystem>

#include "tilegrad/train/run/run_folder.h"

/// Where a command writes its results, without destroying those of another one.
namespace tilegrad::train {

/// Whether the folder has files of a run or a comparison.
bool holds_results(const std::filesystem::path& folder);

/// The folder or, if it holds results, the first of folder-2, folder-3, ... that does not.
std::filesystem::path free_folder(const std::filesystem::path& folder);

/// Throws if the folder holds results; the message names --overwrite, a free folder and, for a run, --resume.
void check_free(const std::filesystem::path& folder);

/// The files of the run that is replaced, kept in the subfolder `previous` until the new run has saved. Those
/// of a new run that was killed before it had saved are replaced in turn, and `previous` stays.
class PreviousRun {
 public:
  explicit PreviousRun(const RunFolder& folder);
  /// Puts the files back, unless drop() was called: the new run has failed.
  ~PreviousRun();
  PreviousRun(const PreviousRun&) = delete;
  PreviousRun& operator=(const PreviousRun&) = delete;

  /// The new run has saved.
  void drop();

 private:
  std::filesystem::path folder_, previous_;
};

}  // namespace tilegrad::train
