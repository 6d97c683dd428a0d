#pragma once

#include <array>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "tilegrad/base/index.h"
#include "tilegrad/train/measure/phase.h"

/// ops.json: where the time and the memory of some calls, usually training steps, went, op by op.
namespace tilegrad::train {

/// What the threads together spent in a stage of an op.
struct StageTime {
  std::string stage = {};
  double thread_ms = 0;
};

/// What one op did in one phase.
struct PhaseCost {
  Index calls = 0;
  double self_ms = 0;
  Index saved_bytes = 0;  ///< by the rules that were recorded; a value that several keep counts each time
  /// Of an op that says how long its stages take: its self time, on every thread. What is in no stage was done by one
  /// thread between its parallel parts, or was not done, because a thread had no work.
  double thread_ms = 0;
  std::vector<StageTime> stages = {};  ///< without those that took no time

  double in_no_stage_ms() const;
};

struct OpCost {
  std::string op = {};
  std::array<PhaseCost, kPhases.size()> phases = {};  ///< by Phase
  double total_ms = 0;  ///< with the ops that ran inside of it; an op inside of itself counts once
  double self_ms = 0;   ///< without them
  Index at_peak = 0;    ///< bytes that its rules kept when the peak was reached

  const PhaseCost& in(Phase phase) const { return phases[static_cast<std::size_t>(phase)]; }
  PhaseCost& in(Phase phase) { return phases[static_cast<std::size_t>(phase)]; }
  Index calls() const;
};

/// Sums over the calls. The self times of the ops and `outside_ms` add up to `ms`.
struct Profile {
  std::string of = {};  ///< which calls: "steps 2 to 4"
  Index calls = 0;
  double ms = 0;
  double outside_ms = 0;  ///< in no op
  Index peak_bytes = 0;   ///< the most that were live
  bool interrupted = false;
  std::vector<OpCost> ops = {};  ///< by self time, the longest first
};

nlohmann::ordered_json to_json(const Profile& profile);
void write_profile(const std::filesystem::path& file, const Profile& profile);

/// A profile without calls if the file is missing or, with a warning, if it is not a profile.
Profile read_profile(const std::filesystem::path& file, std::vector<std::string>& warnings);

}  // namespace tilegrad::train
