#include "tilegrad/train/measure/memory_timeline.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "tilegrad/base/file.h"
#include "tilegrad/base/json.h"

namespace tilegrad::train {

namespace {

using nlohmann::ordered_json;

std::optional<MemoryEvent> event_of(const ordered_json& json) {
  const auto ms = json.find("ms"), phase = json.find("phase"), live = json.find("live_bytes");
  const bool complete = ms != json.end() && ms->is_number() && phase != json.end() && phase->is_string() &&
                        live != json.end() && live->is_number_integer();
  if (!complete) return std::nullopt;
  for (const Phase candidate : kPhases) {
    if (phase->get<std::string>() != to_string(candidate)) continue;
    return MemoryEvent{
        .ms = ms->get<double>(),
        .op = json.contains("op") && json.at("op").is_number_integer() ? json.at("op").get<Index>() : 0,
        .phase = candidate,
        .live_bytes = live->get<Index>()};
  }
  return std::nullopt;
}

}  // namespace

void write_memory_timeline(const std::filesystem::path& file, const MemoryTimeline& timeline) {
  std::string content;
  for (const MemoryEvent& event : timeline) {
    const ordered_json line = {{"ms", event.ms},
                               {"op", event.op},
                               {"phase", to_string(event.phase)},
                               {"live_bytes", event.live_bytes}};
    content += line.dump() + "\n";
  }
  write_file(file, content);
}

MemoryTimeline read_memory_timeline(const std::filesystem::path& file, std::vector<std::string>& warnings) {
  MemoryTimeline timeline;
  if (!std::filesystem::exists(file)) return timeline;
  read_json_lines(
      file,
      [&](const ordered_json& json) {
        const auto event = event_of(json);
        if (event) timeline.push_back(*event);
        return event.has_value();
      },
      warnings);
  return timeline;
}

}  // namespace tilegrad::train
