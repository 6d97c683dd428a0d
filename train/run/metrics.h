#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "tilegrad/train/run/trainer.h"

/// metrics.jsonl: one JSON object a line, in the order of things. `kind` tells them apart:
///   "step"        step, loss, lr, grad_norm, ms, tokens_per_s, live_bytes, peak_bytes, and at_peak, which splits
///                 the peak by what it was used for
///   "evaluation"  step, train_loss, val_loss, accuracy, exact
/// Older programs wrote no `kind`; there, a line with a val_loss is an evaluation.
namespace tilegrad::train {

/// Appends to the file; each line has reached the system before the next step begins.
class MetricsWriter {
 public:
  enum class Start { empty, append };
  /// Throws if the file cannot be written.
  MetricsWriter(const std::filesystem::path& file, Start start);

  /// Both throw, naming the file, if the line could not be written.
  void write(const StepReport& report);
  void write(Index step, double train_loss, const Evaluation& evaluation);

 private:
  void write_line(const nlohmann::ordered_json& line);

  std::filesystem::path file_;
  std::ofstream out_;
};

/// Drops all lines of steps after `step`, an incomplete last line, and damaged ones. Returns a sentence about what
/// was missing or damaged, empty if nothing was.
std::string keep_metrics_until(const std::filesystem::path& file, Index step);

/// What is kept of the evaluations.
struct EvaluationLine {
  Index step = 0;
  double train_loss = 0, val_loss = 0, accuracy = 0, exact = 0;
};

struct Metrics {
  std::vector<StepReport> steps;
  std::vector<EvaluationLine> evaluations;
};

/// What a table says of a run; zeros where there is nothing yet.
struct MetricsSummary {
  EvaluationLine last = {};  ///< evaluation
  double ms_per_step = 0;    ///< median
  double tokens_per_s = 0;   ///< median
  StepReport highest = {};   ///< the first of the steps that needed most memory
};
MetricsSummary summary_of(const Metrics& metrics);

/// All complete lines; none if the file is missing. Throws Error "<file>: line 3 ..." if one is not what it
/// should be.
Metrics read_metrics(const std::filesystem::path& file);
/// The same, but of a file that exists, and damaged lines are left out and reported in `warnings`.
Metrics read_metrics(const std::filesystem::path& file, std::vector<std::string>& warnings);

}  // namespace tilegrad::train
