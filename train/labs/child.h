#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/base/index.h"
#include "tilegrad/train/labs/lab.h"
#include "tilegrad/train/report/console.h"

/// Measurements in processes of their own. The parent writes a task, starts `tilegrad lab measure`, and reads
/// the result.
namespace tilegrad::train {

/// Tasks and results between two processes.
using Json = nlohmann::json;

/// One measurement for a child.
struct Task {
  std::string measurement = {};  ///< its name in the list of measurements
  std::string variant = {};      ///< names the files of --profile; empty: nothing is timed
  Json arguments = {};
  Index repeats = 1;         ///< of what is timed
  int threads = 0;           ///< 0: one for each processor
  std::string profile = {};  ///< the beginning of the profiles' names; empty: none
};

/// Times calls in a child, and profiles them if the task asks for it.
class CallTimer {
 public:
  explicit CallTimer(const Task& task) : repeats_(task.repeats), profile_(task.profile) {}

  /// Milliseconds of each call of f, `repeats` of them; `what` names the profile.
  std::vector<double> time(const std::string& what, const std::function<void()>& f) const;

  const std::string& profile() const { return profile_; }

 private:
  Index repeats_;
  std::string profile_;
};

/// The measurement of the task in this process; throws if there is none of that name.
Json measure(const Task& task);

/// Measures the task in a child process and adds "peak_rss" in bytes, and "threads", those that it used. Throws if the
/// child fails, which has reported why by then, or if the folder of the results cannot be written to; and Interrupted.
Json measure_in_child(const LabOptions& options, Task task);

/// Measures every task in several rounds, interleaved, so that whatever else the machine does meanwhile
/// affects all of them alike. Lists of times in the results are joined; everything else is from the first
/// round. On a terminal a line shows how far it is.
std::vector<Json> measure_interleaved(const LabOptions& options, const std::vector<Task>& tasks,
                                      const Console& console);

/// What was measured in so many rounds.
struct Rounds {
  std::vector<Json> results = {};
  int count = 0;
};
/// What each task took in the first round, in seconds, of which follows how long the rest may take.
using FirstRound = std::function<void(const std::vector<double>& seconds)>;
/// The same, with more rounds while `undecided` is true of those until then: it is asked at each of kRoundLooks. If so few
/// rounds were asked for that they decide nothing, there are no more. Calls `first_round` after the first one.
Rounds measure_until_decided(const LabOptions& options, const std::vector<Task>& tasks,
                             const Console& console, const std::function<bool(const Rounds&)>& undecided,
                             const FirstRound& first_round = {});
/// "6 rounds (up to 24 while undecided)", for the announcement.
std::string planned_rounds(const LabOptions& options);
/// "3 repetitions", for the announcement.
std::string repetitions(Index repeats);

}  // namespace tilegrad::train
