#include "tilegrad/train/measure/profile.h"

#include <nlohmann/json.hpp>

#include "tilegrad/base/file.h"

namespace tilegrad::train {

using nlohmann::json;

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(StageTime, stage, thread_ms)

// By hand, because only few ops have stages.
static void to_json(json& j, const PhaseCost& cost) {
  j = {{"calls", cost.calls}, {"self_ms", cost.self_ms}, {"saved_bytes", cost.saved_bytes}};
  if (!cost.stages.empty()) j.update({{"thread_ms", cost.thread_ms}, {"stages", cost.stages}});
}

static void from_json(const json& j, PhaseCost& cost) {
  j.at("calls").get_to(cost.calls);
  j.at("self_ms").get_to(cost.self_ms);
  j.at("saved_bytes").get_to(cost.saved_bytes);
  cost.thread_ms = j.value("thread_ms", 0.0);
  cost.stages = j.value("stages", std::vector<StageTime>());
}

// By hand, because each phase is stored under its name.
static void to_json(json& j, const OpCost& cost) {
  j = {{"op", cost.op},
       {"calls", cost.calls()},
       {"total_ms", cost.total_ms},
       {"self_ms", cost.self_ms},
       {"at_peak", cost.at_peak}};
  for (const Phase phase : kPhases) j[std::string(to_string(phase))] = cost.in(phase);
}

static void from_json(const json& j, OpCost& cost) {
  j.at("op").get_to(cost.op);
  j.at("total_ms").get_to(cost.total_ms);
  j.at("self_ms").get_to(cost.self_ms);
  j.at("at_peak").get_to(cost.at_peak);
  for (const Phase phase : kPhases) j.at(std::string(to_string(phase))).get_to(cost.in(phase));
}

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Profile, of, calls, ms, outside_ms, peak_bytes, interrupted, ops)

double PhaseCost::in_no_stage_ms() const {
  double rest = thread_ms;
  for (const StageTime& stage : stages) rest -= stage.thread_ms;
  return rest;
}

Index OpCost::calls() const {
  Index sum = 0;
  for (const PhaseCost& part : phases) sum += part.calls;
  return sum;
}

nlohmann::ordered_json to_json(const Profile& profile) { return json(profile); }

void write_profile(const std::filesystem::path& file, const Profile& profile) {
  write_file(file, json(profile).dump(2) + "\n");
}

Profile read_profile(const std::filesystem::path& file, std::vector<std::string>& warnings) {
  if (!std::filesystem::exists(file)) return {};
  try {
    return json::parse(read_file(file)).get<Profile>();
  } catch (const json::exception&) {
    warnings.push_back(file.string() + ": is not a profile; left out");
    return {};
  }
}

}  // namespace tilegrad::train
