#include "tilegrad/train/measure/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

namespace tilegrad::train {

Quartiles quartiles(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<std::size_t>(std::lround(share * static_cast<double>(values.size() - 1)))];
  };
  return {.first = at(0.25), .median = at(0.5), .third = at(0.75)};
}

double median(std::vector<double> values) { return quartiles(std::move(values)).median; }

}  // namespace tilegrad::train
