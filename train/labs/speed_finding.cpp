#include "tilegrad/train/labs/speed_finding.h"

#include <fmt/format.h>

#include <algorithm>

namespace tilegrad::train {

std::string speed_finding(std::string_view a, std::string_view b, const std::vector<double>& a_ms,
                          const std::vector<double>& b_ms, Verdict verdict) {
  const double ratio = median(b_ms) / median(a_ms);
  constexpr double kWorthSaying = 1.005;  // which is written as 1.01
  if (verdict != Verdict::not_distinguishable && std::max(ratio, 1 / ratio) < kWorthSaying) {
    return fmt::format("the times of {} and {} differ by less than half a percent", a, b);
  }
  // The medians have the last word, because the ratio is theirs.
  if (verdict == Verdict::less && ratio > 1) return fmt::format("{} is {:.2f}x faster than {}", a, ratio, b);
  if (verdict == Verdict::greater && ratio < 1) {
    return fmt::format("{} is {:.2f}x slower than {}", a, 1 / ratio, b);
  }
  return fmt::format("the times of {} and {} are not distinguishable", a, b);
}

}  // namespace tilegrad::train
