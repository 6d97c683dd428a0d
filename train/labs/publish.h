#pragma once

#include <string>
#include <vector>

#include "tilegrad/train/labs/columns.h"
#include "tilegrad/train/labs/lab.h"
#include "tilegrad/train/report/console.h"
#include "tilegrad/train/report/page.h"

namespace tilegrad::train {

/// Several times as one: the median, and the distance of the quartiles around it.
struct Timing {
  std::vector<double> all_ms = {};
  double ms = 0;
  double spread_ms = 0;
};
/// Of at least one time.
Timing timing_of(const std::vector<double>& ms);

/// What a lab leaves behind.
struct LabResult {
  std::string name;           ///< of the files: <name>.json, <name>.csv and report.html
  OrderedJson configuration;  ///< what was asked for
  OrderedJson rows = {};      ///< the numbers, unrounded; objects of equal keys, a line of the CSV each
  OrderedJson details = {};   ///< more numbers, for the JSON alone
  Report report = {};         ///< without facts
};

/// Says what the lab is about to do.
void announce(const Console& console, const std::string& plan);

/// Prints the tables and the finding, and writes the files. The facts of the report are the configuration,
/// with the number of threads, and the environment, which is written to environment.json, too.
void publish(const LabOptions& options, const LabResult& result, const Console& console);

}  // namespace tilegrad::train
