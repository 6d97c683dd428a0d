#include "tilegrad/train/report/profile_table.h"

#include <fmt/format.h>

#include "tilegrad/base/format.h"

namespace tilegrad::train {

namespace {

// A number that a call has on average; nothing for 0.
std::string average(double sum, Index calls, int decimals) {
  return sum == 0 ? "–" : fmt::format("{:.{}f}", sum / static_cast<double>(calls), decimals);
}

std::string percent(double part, double whole) {
  return part == 0 ? "–" : fmt::format("{:.1f}", 100 * part / whole);
}

std::vector<std::string> row_of(const OpCost& cost, const Profile& profile) {
  const auto ms = [&](double sum) { return average(sum, profile.calls, 3); };
  return {cost.op,
          fmt::format("{:g}", static_cast<double>(cost.calls()) / static_cast<double>(profile.calls)),
          ms(cost.total_ms),
          ms(cost.self_ms),
          percent(cost.self_ms, profile.ms),
          ms(cost.in(Phase::forward).self_ms),
          ms(cost.in(Phase::backward).self_ms),
          ms(cost.in(Phase::recompute).self_ms),
          average(mebibytes(cost.in(Phase::forward).saved_bytes), profile.calls, 3),
          percent(static_cast<double>(cost.at_peak), static_cast<double>(profile.peak_bytes))};
}

}  // namespace

Table profile_table(const std::string& name, const Profile& profile) {
  Table table = {
      .title = fmt::format("Ops of {}: mean of {}{}, {:.2f} ms, peak {}", name, profile.of,
                           profile.interrupted ? " (interrupted)" : "",
                           profile.ms / static_cast<double>(profile.calls), format_bytes(profile.peak_bytes)),
      .columns = {"op", "calls", "total, ms", "self, ms", "self, %", "forward, ms", "backward, ms",
                  "recompute, ms", "saved, MiB", "of the peak, %"},
      .rows = {}};
  for (const OpCost& cost : profile.ops) table.rows.push_back(row_of(cost, profile));
  const std::string outside = average(profile.outside_ms, profile.calls, 3);
  table.rows.push_back(
      {"(no op)", "–", outside, outside, percent(profile.outside_ms, profile.ms), "–", "–", "–", "–", "–"});
  return table;
}

}  // namespace tilegrad::train
