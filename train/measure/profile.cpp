#include "tilegrad/train/measure/profile.h"

#include "tilegrad/base/file.h"

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

}  // namespace

Index OpCost::calls() const {
  Index sum = 0;
  for (const PhaseCost& part : phases) sum += part.calls;
  return sum;
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
