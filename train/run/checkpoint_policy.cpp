#include "tilegrad/train/run/checkpoint_policy.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "tilegrad/base/error.h"
#include "tilegrad/train/run/names.h"

namespace tilegrad::train {

namespace {

constexpr std::string_view kBudget = "budget:";

struct Unit {
  std::string_view name;
  Index bytes;
};
constexpr Unit kUnits[] = {
    {"KiB", Index{1} << 10}, {"MiB", Index{1} << 20}, {"GiB", Index{1} << 30}, {"", 1}, {"B", 1}};

// The shortest way to write a number of bytes, exactly; among equals the first unit of the list.
std::string bytes_text(Index bytes) {
  std::string shortest;
  for (const Unit& unit : kUnits) {
    const std::string text =
        fmt::format("{}{}", static_cast<double>(bytes) / static_cast<double>(unit.bytes), unit.name);
    if (shortest.empty() || text.size() < shortest.size()) shortest = text;
  }
  return shortest;
}

Index parse_segments(const std::string& text) {
  Index segments = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, segments);
  check(error == std::errc() && stop == end && segments >= 1,
        "checkpoint: `{}` is not none, block, a number of segments from 1 on, budget:BYTES, attention, mlp, "
        "elementwise",
        text);
  return segments;
}

}  // namespace

CheckpointPolicy parse_checkpoint_policy(const std::string& text) {
  if (text == "block") return EveryBlock{};
  if (text.starts_with(kBudget)) {
    return MemoryBudget{parse_bytes("checkpoint", text.substr(kBudget.size()))};
  }
  for (const auto& [recompute, name] : kNames<nn::Recompute>) {
    if (text == name) return recompute;
  }
  return Segments{parse_segments(text)};
}

std::string to_string(const CheckpointPolicy& policy) {
  if (const auto* segments = std::get_if<Segments>(&policy)) return fmt::format("{}", segments->count);
  if (const auto* budget = std::get_if<MemoryBudget>(&policy)) {
    return std::string(kBudget) + bytes_text(budget->bytes);
  }
  if (std::holds_alternative<EveryBlock>(policy)) return "block";
  return std::string(name_of(std::get<nn::Recompute>(policy)));
}

nn::Recompute recompute_of(const CheckpointPolicy& policy) {
  const auto* recompute = std::get_if<nn::Recompute>(&policy);
  return recompute != nullptr ? *recompute : nn::Recompute::nothing;
}

void validate(const CheckpointPolicy& policy, Index layers) {
  const auto* segments = std::get_if<Segments>(&policy);
  if (segments == nullptr) return;
  check(segments->count <= layers, "checkpoint: {} segments of {} layers", segments->count, layers);
}

Schedule schedule_of(const CheckpointPolicy& policy, Index layers) {
  validate(policy, layers);
  if (std::holds_alternative<EveryBlock>(policy)) return even_segments(layers, layers);
  const auto* segments = std::get_if<Segments>(&policy);
  return even_segments(layers, segments != nullptr ? segments->count : 0);
}

Index parse_bytes(std::string_view what, const std::string& text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  std::string_view unit(stop, static_cast<std::size_t>(end - stop));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  const auto known =
      std::find_if(std::begin(kUnits), std::end(kUnits), [&](const Unit& u) { return u.name == unit; });
  const double bytes = known == std::end(kUnits) ? 0 : std::floor(number * static_cast<double>(known->bytes));
  check(error == std::errc() && bytes >= 1 && bytes < 0x1p53,
        "{}: `{}` is not a number of bytes, such as 65536, 64KiB, 1.5MiB or 2GiB", what, text);
  return static_cast<Index>(bytes);
}

}  // namespace tilegrad::train
