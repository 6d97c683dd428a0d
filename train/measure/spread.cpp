#include "tilegrad/train/measure/spread.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace tilegrad::train {

namespace {

// |t| that chance exceeds in 5 % of all cases, for 1, 2, ... degrees of freedom; for more, the last one is on the
// safe side.
constexpr std::array kCriticalT = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                                   2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086};

double square(double x) { return x * x; }

// The square of the standard error of a mean.
double squared_error(const Spread& s) { return square(s.deviation) / static_cast<double>(s.count); }

}  // namespace

Spread spread_of(const std::vector<double>& values) {
  Spread s = {.lowest = std::numeric_limits<double>::infinity(),
              .highest = -std::numeric_limits<double>::infinity()};
  double sum = 0;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    ++s.count;
    sum += value;
    s.lowest = std::min(s.lowest, value);
    s.highest = std::max(s.highest, value);
  }
  const auto n = static_cast<double>(s.count);
  s.mean = sum / n;
  double squares = 0;
  for (const double value : values) {
    if (std::isfinite(value)) squares += square(value - s.mean);
  }
  if (s.count > 1) s.deviation = std::sqrt(squares / (n - 1));
  return s;
}

bool distinguishable(const Spread& a, const Spread& b) {
  if (a.count < 2 || b.count < 2 || a.mean == b.mean) return false;
  const double ea = squared_error(a), eb = squared_error(b);
  if (ea + eb == 0) return true;
  const double degrees = square(ea + eb) / (square(ea) / static_cast<double>(a.count - 1) +
                                            square(eb) / static_cast<double>(b.count - 1));
  const auto row = std::clamp<std::size_t>(static_cast<std::size_t>(degrees), 1, kCriticalT.size()) - 1;
  return std::abs(a.mean - b.mean) > kCriticalT[row] * std::sqrt(ea + eb);
}

}  // namespace tilegrad::train
