#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tilegrad/autograd/tensor.h"
#include "tilegrad/base/error.h"
#include "tilegrad/base/index.h"
#include "tilegrad/train/report/console.h"
#include "tilegrad/train/report/page.h"

/// What the labs share. A lab measures each of its variants in a process of its own, so that the peak of
/// physical memory belongs to that variant alone, and says in one line what it found.
namespace tilegrad::train {

using Json = nlohmann::ordered_json;

struct LabOptions {
  std::string out;                                   ///< folder for the results
  std::filesystem::path program = "/proc/self/exe";  ///< `tilegrad`, which measures each variant
  int rounds = 3;                                    ///< of timed measurements
  bool profile = false;                              ///< tell what ops cost, in all that is timed
  std::string command = {};                          ///< that repeats the lab
};

/// One measurement: takes a task, whose "probe" names the measurement, and returns the numbers.
using Probe = Json (*)(const Json& task);

/// The measurement in this process; throws if there is none of that name.
Json measure(const Json& task);

/// Ctrl-C ended a measurement, and with it the lab.
class Interrupted : public Error {
 public:
  using Error::Error;
};

/// Measures the task in a child process and adds "peak_rss" in bytes. Throws if the child fails, which has
/// told why by then, or if the folder of the results cannot be written to; and Interrupted.
Json measure_apart(const LabOptions& options, const Json& task);

/// What a child does: `folder` holds the task, and will hold the result.
void answer(const std::filesystem::path& folder);

/// Measures every task in several rounds, by turns, so that what else the machine does meanwhile falls on all
/// of them alike. Lists in the results (of times) are joined; everything else is from the first round.
std::vector<Json> measure_by_turns(const LabOptions& options, const std::vector<Json>& tasks);

/// Milliseconds of each call of f, the task's "repeats" of them; `what` is the name that --profile gives
/// them.
std::vector<double> time_calls(const Json& task, const std::string& what, const std::function<void()>& f);

/// Of models whose answers do not matter: as many tokens as bytes, and random ones of them, i32 (B, T).
inline constexpr Index kVocabulary = 256;
Tensor random_tokens(Index batch, Index time, RandomKey key);

/// Several times as one: the median, and the distance of the quartiles around it.
struct Timing {
  double ms = 0;
  double spread_ms = 0;
};
/// From a list of milliseconds, at least one.
Timing timing_of(const Json& ms);

/// What a lab leaves behind.
struct LabResult {
  std::string name;    ///< of the files: <name>.json, <name>.csv and report.html
  Json configuration;  ///< what was asked for
  Json rows;           ///< the numbers, unrounded; objects of equal keys, a line of the CSV each
  Json details = {};   ///< more numbers, for the JSON alone
  Report report;       ///< without facts
};
/// Prints the tables and the finding, and writes the files. The facts of the report are the configuration,
/// with the number of threads, and the environment, which is written to environment.json, too.
void publish(const LabOptions& options, const LabResult& result, const Console& console);

/// Rows of equal keys as lines, under a line with the keys.
std::string csv_of(const Json& rows);

}  // namespace tilegrad::train
