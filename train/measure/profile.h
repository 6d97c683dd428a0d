#pragma once

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tilegrad/train/measure/memory_timeline.h"

/// ops.json: where the time and the memory of some calls, steps of training as a rule, went op by op.
namespace tilegrad::train {

/// What one op did in one phase.
struct PhaseCost {
  Index calls = 0;
  double self_ms = 0;
  Index saved_bytes = 0;  ///< by the rules that were recorded; a value that several keep counts each time
};

struct OpCost {
  std::string op = {};
  std::array<PhaseCost, kPhases.size()> phases = {};  ///< by Phase
  double total_ms = 0;  ///< with the ops that ran inside of it; inside of itself counts once
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

/// Without calls if the file is missing, or damaged, which is then told in `damage`.
Profile read_profile(const std::filesystem::path& file, std::vector<std::string>& damage);

}  // namespace tilegrad::train
