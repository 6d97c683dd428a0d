#pragma once

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/tensors.h"
#include "tests/train/tiny_runs.h"
#include "tilegrad/train/measure/profile.h"

namespace tilegrad::train {

using test::random_leaf;

inline const OpCost& cost_of(const Profile& profile, std::string_view op) {
  const auto found =
      std::find_if(profile.ops.begin(), profile.ops.end(), [&](const OpCost& cost) { return cost.op == op; });
  REQUIRE_MESSAGE(found != profile.ops.end(), op, " is missing");
  return *found;
}

template <class Value>
auto sum_over_ops(const Profile& profile, Value&& value_of) {
  auto sum = value_of(OpCost());
  for (const OpCost& cost : profile.ops) sum += value_of(cost);
  return sum;
}

inline Index calls_in(const Profile& profile, Phase phase) {
  return sum_over_ops(profile, [&](const OpCost& cost) { return cost.in(phase).calls; });
}

inline Index saved_in(const Profile& profile, Phase phase) {
  return sum_over_ops(profile, [&](const OpCost& cost) { return cost.in(phase).saved_bytes; });
}

/// The numbers that do not depend on the clock.
inline std::vector<std::string> timeless(const Profile& profile) {
  std::vector<std::string> lines;
  for (const OpCost& cost : profile.ops) {
    std::string line = fmt::format("{} {}", cost.op, cost.at_peak);
    for (const PhaseCost& part : cost.phases) line += fmt::format(" {} {}", part.calls, part.saved_bytes);
    lines.push_back(line);
  }
  std::sort(lines.begin(), lines.end());
  return lines;
}

inline Profile read_intact(const std::string& file) {
  REQUIRE(std::filesystem::exists(file));
  std::vector<std::string> warnings;
  const Profile profile = read_profile(file, warnings);
  CHECK(warnings.empty());
  return profile;
}

}  // namespace tilegrad::train
