#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "tilegrad/train/report/console.h"
#include "tilegrad/train/run/trainer.h"

namespace tilegrad::train {

struct ProgressOptions {
  Index steps = 0;         ///< of the whole run
  std::string label = {};  ///< in front of each line, to distinguish several runs
  bool quiet = false;      ///< show nothing
  bool json = false;       ///< lines are JSON objects, as if there were no terminal
};

/// Shows how a run is getting on: on a terminal one line with a bar that is overwritten, ten times a second
/// at most; elsewhere a line for each evaluation, once a second at most, and one every ten seconds in
/// between. The last step is always shown.
class Progress {
 public:
  Progress(const Console& console, ProgressOptions options);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(const StepReport& report);
  void evaluation(const Evaluation& evaluation);

 private:
  using Clock = std::chrono::steady_clock;

  double seconds_left() const;
  std::string line(bool with_evaluation) const;
  std::string line_with_bar() const;
  std::string json() const;
  void show_after(Clock::duration pause);

  const Console& console_;
  ProgressOptions options_;
  bool overwrite_;  // the line on the terminal
  StepReport last_;
  std::optional<Evaluation> evaluation_;
  double mean_ms_ = 0;     // over the last few steps
  std::size_t width_ = 0;  // of the line on the terminal
  Clock::time_point start_ = Clock::now(), shown_ = start_;
};

}  // namespace tilegrad::train
