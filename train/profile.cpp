#include "train/profile.h"

#include <fmt/format.h>

#include "base/file.h"
#include "base/format.h"

namespace tilegrad::train {

namespace {

using nlohmann::ordered_json;

ordered_json to_json(const OpCost& cost) {
  ordered_json json = {{"op", cost.op},
                       {"calls", cost.calls()},
                       {"total_ms", cost.total_ms},
                       {"self_ms", cost.self_ms},
                       {"at_peak", cost.at_peak}};
  for (const Phase phase : kPhases) {
    const PhaseCost& part = cost.in(phase);
    json[std::string(name_of(phase))] = {
        {"calls", part.calls}, {"self_ms", part.self_ms}, {"saved_bytes", part.saved_bytes}};
  }
  return json;
}

OpCost op_cost_of(const ordered_json& json) {
  OpCost cost = {.op = json.at("op").get<std::string>(),
                 .total_ms = json.at("total_ms").get<double>(),
                 .self_ms = json.at("self_ms").get<double>(),
                 .at_peak = json.at("at_peak").get<Index>()};
  for (const Phase phase : kPhases) {
    const ordered_json& part = json.at(std::string(name_of(phase)));
    cost.in(phase) = {.calls = part.at("calls").get<Index>(),
                      .self_ms = part.at("self_ms").get<double>(),
                      .saved_bytes = part.at("saved_bytes").get<Index>()};
  }
  return cost;
}

Profile profile_of(const ordered_json& json) {
  Profile profile = {.of = json.at("of").get<std::string>(),
                     .calls = json.at("calls").get<Index>(),
                     .ms = json.at("ms").get<double>(),
                     .outside_ms = json.at("outside_ms").get<double>(),
                     .peak_bytes = json.at("peak_bytes").get<Index>(),
                     .interrupted = json.at("interrupted").get<bool>()};
  for (const ordered_json& op : json.at("ops")) profile.ops.push_back(op_cost_of(op));
  return profile;
}

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

Index OpCost::calls() const {
  Index sum = 0;
  for (const PhaseCost& part : phases) sum += part.calls;
  return sum;
}

ReportTable profile_table(const std::string& name, const Profile& profile) {
  ReportTable table = {
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

ordered_json to_json(const Profile& profile) {
  ordered_json json = {{"of", profile.of},
                       {"calls", profile.calls},
                       {"ms", profile.ms},
                       {"outside_ms", profile.outside_ms},
                       {"peak_bytes", profile.peak_bytes},
                       {"interrupted", profile.interrupted},
                       {"ops", ordered_json::array()}};
  for (const OpCost& cost : profile.ops) json["ops"].push_back(to_json(cost));
  return json;
}

void write_profile(const std::filesystem::path& file, const Profile& profile) {
  write_file(file, to_json(profile).dump(2) + "\n");
}

Profile read_profile(const std::filesystem::path& file, std::vector<std::string>& damage) {
  if (!std::filesystem::exists(file)) return {};
  try {
    return profile_of(ordered_json::parse(read_file(file)));
  } catch (const ordered_json::exception&) {
    damage.push_back(file.string() + ": is not a profile; left out");
    return {};
  }
}

}  // namespace tilegrad::train
