#pragma once

#include <vector>

#include "tilegrad/base/index.h"

/// What repetitions with different seeds say.
namespace tilegrad::train {

struct Spread {
  Index count = 0;
  double mean = 0;       ///< NaN if there is nothing
  double deviation = 0;  ///< standard deviation of the sample; 0 for fewer than two values
  double lowest = 0, highest = 0;
};

/// Values that are not finite are left out.
Spread spread_of(const std::vector<double>& values);

/// Whether two means differ by more than chance: Welch's t-test at the level of 5 %, with the degrees of freedom
/// rounded down. One value on either side decides nothing.
bool distinguishable(const Spread& a, const Spread& b);

}  // namespace tilegrad::train
