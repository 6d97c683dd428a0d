#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train/comparison.h"

namespace tilegrad::train {

/// The results as people read them: one variant a row.
std::string comparison_table(const std::vector<VariantResult>& results);

/// A line for each step: the step, then for each variant its loss, then for each its validation loss, empty
/// where there is none.
std::string curves_csv(const std::vector<VariantResult>& results);

/// The table's numbers, unrounded.
nlohmann::ordered_json comparison_json(const std::vector<VariantResult>& results);

}  // namespace tilegrad::train
