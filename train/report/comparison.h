#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tilegrad/train/measure/profile.h"
#include "tilegrad/train/run/metrics.h"

namespace tilegrad::train {

/// What the table says of one variant.
struct VariantResult {
  std::string name;
  int exit_code = 0;
  Index parameters = 0;
  Index kv_bytes_per_token = 0;
  EvaluationLine last = {};
  double ms_per_step = 0;  ///< median
  double tokens_per_s = 0;
  Index peak_bytes = 0;           ///< tracked
  Index peak_rss = 0;             ///< of the process
  double largest_difference = 0;  ///< |loss − loss of the first variant| over all steps that both have
  Metrics metrics;
  Profile profile = {};  ///< without calls if there is none
};

/// The results as people read them: one variant a row.
std::string comparison_table(const std::vector<VariantResult>& results);

/// A line for each step: the step, then for each variant its loss, then for each its validation loss, empty
/// where there is none.
std::string curves_csv(const std::vector<VariantResult>& results);

/// The table's numbers, unrounded.
nlohmann::ordered_json comparison_json(const std::vector<VariantResult>& results);

}  // namespace tilegrad::train
