#pragma once

#include <ostream>
#include <vector>

#include "tilegrad/train/app/check_cases.h"

namespace tilegrad::train {

/// Runs the cases and prints a line for each: op, shapes, inputs checked, worst relative error, verdict; and
/// the worst input of those that fail. An op that throws counts as a failure. Returns the number of failures.
Index run_checks(const std::vector<GradcheckCase>& cases, std::ostream& out);

}  // namespace tilegrad::train
