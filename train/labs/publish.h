#pragma once

#include <string>
#include <vector>

#include "tilegrad/train/labs/columns.h"
#include "tilegrad/train/labs/lab.h"
#include "tilegrad/train/labs/whys.h"
#include "tilegrad/train/measure/statistics.h"
#include "tilegrad/train/report/console.h"
#include "tilegrad/train/report/page.h"

namespace tilegrad::train {

/// Several times as one: the median, and the distance of the quartiles around it.
struct Timing {
  double ms = 0;
  double spread_ms = 0;
  std::vector<double> round_ms = {};  ///< the median of each round
};
/// Of at least one time, and as many in each round, which follow each other. Rounds are what a test of speed compares:
/// what a neighbour does to one repetition of a round, it does to the next one, too.
Timing timing_of(const std::vector<double>& ms, int rounds = 1);

/// Whether a is faster (less) or slower than b, by the rounds until then (kRoundLooks).
Verdict verdict_on(const Timing& a, const Timing& b);

/// What a lab leaves behind.
struct LabResult {
  std::string name;            ///< of the files: <name>.json, <name>.csv and report.html
  OrderedJson configuration;   ///< what was asked for
  OrderedJson rows = {};       ///< the numbers, unrounded; objects of equal keys, a line of the CSV each
  OrderedJson details = {};    ///< more numbers, for the JSON alone
  std::vector<Why> whys = {};  ///< of results that puzzle
  Report report = {};          ///< without facts
};

/// Says what the lab is about to do.
void announce(const Console& console, const std::string& plan);

/// Prints the tables and the finding, and writes the files. The facts of the report are the configuration,
/// with the number of threads, and the environment, which is written to environment.json, too.
void publish(const LabOptions& options, const LabResult& result, const Console& console);

}  // namespace tilegrad::train
