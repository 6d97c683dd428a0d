#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "tilegrad/train/report/loaded_run.h"
#include "tilegrad/train/report/table.h"

namespace tilegrad::train {

/// The results of runs as people read them, one row per run: for the terminal and for the page.
Table results_table(const std::vector<LoadedRun>& runs);

/// The same results as numbers with all their digits, and what only programs ask for: an array with one object per run,
/// the content of compare.json.
nlohmann::ordered_json results_json(const std::vector<LoadedRun>& runs);

/// The same as CSV, one line per run; what is not known is empty.
std::string results_csv(const std::vector<LoadedRun>& runs);

/// A line for each step: the step, then for each run its loss, then for each its validation loss, empty where
/// there is none.
std::string curves_csv(const std::vector<LoadedRun>& runs);

}  // namespace tilegrad::train
