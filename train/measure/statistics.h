#pragma once

#include <vector>

namespace tilegrad::train {

/// A median, and the half of the values that lies around it.
struct Quartiles {
  double first = 0, median = 0, third = 0;
};

/// Each is one of the values, of two equally good ones the upper; zeros if there is none.
Quartiles quartiles(std::vector<double> values);

double median(std::vector<double> values);

}  // namespace tilegrad::train
