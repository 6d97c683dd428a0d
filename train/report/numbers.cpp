#include "tilegrad/train/report/numbers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tilegrad::train {

std::string format_percent(double share) {
  double percent = 100 * share;
  if (share > 0 && share < 1) percent = std::clamp(percent, 0.1, 99.9);
  return fmt::format("{:.1f} %", percent);
}

std::string format_spread(const Spread& s, int decimals) {
  if (s.count == 0) return "-";
  if (s.count == 1) return fmt::format("{:.{}f}", s.mean, decimals);
  const int meaningful =
      s.deviation > 0 ? 1 - static_cast<int>(std::floor(std::log10(s.deviation))) : decimals;
  const int digits = std::clamp(meaningful, 0, decimals);
  return fmt::format("{:.{}f} ± {:.{}f}", s.mean, digits, s.deviation, digits);
}

std::string format_percent(const Spread& s) {
  if (s.count == 0) return "-";
  if (s.count == 1) return format_percent(s.mean);
  return fmt::format("{:.1f} ± {:.1f} %", 100 * s.mean, 100 * s.deviation);
}

std::string describe_loss(double nats, bool is_text) {
  return is_text ? fmt::format("{:.4f} nats ({:.3f} bits per byte)", nats, bits_of(nats))
                 : fmt::format("{:.4f}", nats);
}

std::string few_of(const std::vector<std::string>& names, std::string_view separator) {
  constexpr std::size_t kFew = 3;
  std::string text;
  for (std::size_t i = 0; i < std::min(kFew, names.size()); ++i) {
    if (i > 0) text += separator;
    text += names[i];
  }
  return names.size() > kFew ? text + fmt::format(" and {} more", names.size() - kFew) : text;
}

std::string describe_accuracy(const Evaluation& e, bool is_text) {
  if (is_text) return format_percent(e.accuracy) + " of the bytes";
  return fmt::format("{} of the answers, {} of the sequences", format_percent(e.accuracy),
                     format_percent(e.exact));
}

}  // namespace tilegrad::train
