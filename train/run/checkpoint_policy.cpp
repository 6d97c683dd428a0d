#include "tilegrad/train/run/checkpoint_policy.h"

#include <charconv>
#include <cmath>

#include "tilegrad/base/error.h"
#include "tilegrad/train/run/names.h"

namespace tilegrad::train {

namespace {

constexpr std::string_view kBudget = "budget:";

Index factor_of(std::string_view unit) {
  if (unit.empty() || unit == "B") return 1;
  if (unit == "KiB") return Index{1} << 10;
  if (unit == "MiB") return Index{1} << 20;
  if (unit == "GiB") return Index{1} << 30;
  return 0;
}

bool names_policy(const std::string& text) {
  const auto names = all_names<nn::Recompute>();
  return std::find(names.begin(), names.end(), text) != names.end();
}

Index parse_segments(const std::string& text, Index layers) {
  Index segments = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, segments);
  check(error == std::errc() && stop == end && segments >= 1,
        "checkpoint: `{}` is not none, block, a number of segments from 1 on, budget:BYTES, {}", text,
        fmt::join(all_names<nn::Recompute>(), ", "));
  check(segments <= layers, "checkpoint: {} segments of {} layers", segments, layers);
  return segments;
}

}  // namespace

CheckpointSetting parse_checkpoint(const std::string& text, Index layers) {
  if (text == "none") return {};
  if (text == "block") return {.segments = layers};
  if (text.starts_with(kBudget)) return {.budget = parse_bytes("checkpoint", text.substr(kBudget.size()))};
  if (names_policy(text)) return {.recompute = value_of<nn::Recompute>("checkpoint", text)};
  return {.segments = parse_segments(text, layers)};
}

Index parse_bytes(std::string_view what, const std::string& text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  std::string_view unit(stop, static_cast<std::size_t>(end - stop));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  const double bytes = std::floor(number * static_cast<double>(factor_of(unit)));
  check(error == std::errc() && bytes >= 1 && bytes < 0x1p62,
        "{}: `{}` is not a number of bytes, such as 65536, 64KiB, 1.5MiB or 2GiB", what, text);
  return static_cast<Index>(bytes);
}

}  // namespace tilegrad::train
