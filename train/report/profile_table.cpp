#include "tilegrad/train/report/profile_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "tilegrad/base/format.h"
#include "tilegrad/kernels/attention/stages.h"

namespace tilegrad::train {

namespace {

constexpr std::string_view kNothing = "–";
// Spaces that a page does not swallow.
constexpr std::string_view kIndent = "\u00a0\u00a0";

// A number that a call has on average; nothing for 0.
std::string average(double sum, Index calls, int decimals) {
  return sum == 0 ? std::string(kNothing)
                  : fmt::format("{:.{}f}", sum / static_cast<double>(calls), decimals);
}

std::string percent(double part, double whole) {
  return part == 0 ? std::string(kNothing) : fmt::format("{:.1f}", 100 * part / whole);
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

// The shares of a stage in its op's time on all threads, in the columns of the phases.
template <class ThreadMs>
std::vector<std::string> stage_row(std::string_view name, const OpCost& cost, ThreadMs thread_ms) {
  const auto share = [&](Phase phase) {
    const PhaseCost& part = cost.in(phase);
    const std::string number = percent(std::invoke(thread_ms, part), part.thread_ms);
    return part.stages.empty() || number == kNothing ? std::string(kNothing) : number + " %";
  };
  const std::string none(kNothing);
  return {fmt::format("{}{}", kIndent, name),
          none,
          none,
          none,
          none,
          share(Phase::forward),
          share(Phase::backward),
          share(Phase::recompute),
          none,
          none};
}

void add_stages(const OpCost& cost, Table& table) {
  const auto in_stage = [](std::string_view name) {
    return [name](const PhaseCost& part) {
      double ms = 0;
      for (const StageTime& stage : part.stages) ms += stage.stage == name ? stage.thread_ms : 0;
      return ms;
    };
  };
  bool any = false;
  for (int i = 0; i < kernels::kStages; ++i) {
    const std::string_view name = name_of(static_cast<kernels::Stage>(i));
    const auto ms = in_stage(name);
    const bool took_time = std::any_of(cost.phases.begin(), cost.phases.end(),
                                       [&](const PhaseCost& part) { return ms(part) > 0; });
    if (took_time) table.rows.push_back(stage_row(name, cost, ms));
    any |= took_time;
  }
  if (any) table.rows.push_back(stage_row("in no stage", cost, &PhaseCost::in_no_stage_ms));
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
  for (const OpCost& cost : profile.ops) {
    table.rows.push_back(row_of(cost, profile));
    add_stages(cost, table);
  }
  const std::string outside = average(profile.outside_ms, profile.calls, 3);
  table.rows.push_back(
      {"(no op)", "–", outside, outside, percent(profile.outside_ms, profile.ms), "–", "–", "–", "–", "–"});
  return table;
}

}  // namespace tilegrad::train
