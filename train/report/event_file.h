#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tilegrad/train/report/loaded_run.h"

/// Event files, which TensorBoard shows. A file is a row of records; each is an `Event` message of protocol
/// buffers between its length and checksums (the TFRecord framing of TensorFlow).
namespace tilegrad::train {

/// A CRC-32C (Castagnoli), masked as TFRecord wants it, so that data which holds checksums of itself stays safe.
std::uint32_t masked_crc32c(std::string_view data);

class EventFile {
 public:
  /// Makes `folder`, and in it a file for what comes after `step`: a reader forgets later steps of other files.
  /// Throws if it cannot be written, as do the others.
  EventFile(const std::filesystem::path& folder, Index step, double wall_time);

  /// Named numbers at a step; `wall_time` is in seconds since 1970.
  void write(Index step, double wall_time, const std::vector<std::pair<std::string, double>>& scalars);
  void write(const StepReport& report, double wall_time);
  void write(const EvaluationLine& evaluation, double wall_time);

  const std::filesystem::path& path() const { return path_; }

 private:
  void write_record(std::string_view event);

  std::filesystem::path path_;
  std::ofstream out_;
};

/// Writes a folder of events for each run into `folder`. A run's own clock is lost; its steps are placed so that
/// they end when its metrics.jsonl was last written.
void export_events(const std::filesystem::path& folder, const std::vector<LoadedRun>& runs);

/// Seconds since 1970.
double wall_time_now();

}  // namespace tilegrad::train
