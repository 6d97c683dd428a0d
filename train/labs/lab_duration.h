#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "tilegrad/train/labs/lab.h"
#include "tilegrad/train/report/console.h"

/// How long a lab takes: what it says in advance, and how far it has come.
namespace tilegrad::train {

/// Seconds since it was made.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

/// The seconds of all tasks together.
double total(const std::vector<double>& seconds);

/// Seconds that something takes, and that it takes if what it compares stays undecided.
struct Expected {
  double seconds = 0, undecided = 0;

  Expected operator+(double more) const { return {seconds + more, undecided + more}; }
};

/// All rounds of a lab, by what one of them took.
Expected expected_of_rounds(const LabOptions& options, double seconds_of_a_round);

/// "about 20 s", "about 4 min", "about 20 s, up to 80 s while undecided".
std::string describe(const Expected& expected);

/// On a terminal a line with a bar that is overwritten: how much of the work is done, and how long the rest takes if it
/// is like what was done until then. Nothing elsewhere.
class LabProgress {
 public:
  LabProgress(const Console& console, std::string things, std::size_t all);
  ~LabProgress();
  LabProgress(const LabProgress&) = delete;
  LabProgress& operator=(const LabProgress&) = delete;

  /// One more thing is done.
  void done();
  /// Clears the line, for one that stays.
  void clear();

 private:
  std::string line() const;
  void show();

  const Console& console_;
  std::string things_;
  std::size_t all_, done_ = 0, width_ = 0;
  Stopwatch watch_;
};

}  // namespace tilegrad::train
