#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "train/console.h"
#include "train/trainer.h"

namespace tilegrad::train {

/// "1:02:03", "2:03" or "12 s".
std::string format_duration(double seconds);
/// "950", "12.3k", "4.5M".
std::string format_count(double n);

/// Shows how a run is getting on: on a terminal one line that is written over, ten times a second at most;
/// elsewhere a line for each evaluation, and one every ten seconds in between.
class Progress {
 public:
  Progress(const Console& console, Index steps, bool quiet);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(const StepReport& report);
  void evaluation(const Evaluation& evaluation);

 private:
  using Clock = std::chrono::steady_clock;

  std::string line() const;
  void show(bool now);

  const Console& console_;
  Index steps_;
  bool quiet_;
  StepReport last_;
  std::optional<Evaluation> evaluation_;
  double mean_ms_ = 0;     // over the last few steps
  std::size_t width_ = 0;  // of the line on the terminal
  Clock::time_point shown_ = Clock::now();
};

}  // namespace tilegrad::train
