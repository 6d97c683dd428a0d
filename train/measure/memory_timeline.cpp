#include "tilegrad/train/measure/memory_timeline.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "tilegrad/autograd/tape.h"
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
    if (phase->get<std::string>() != name_of(candidate)) continue;
    return MemoryEvent{.ms = ms->get<double>(), .phase = candidate, .live_bytes = live->get<Index>()};
  }
  return std::nullopt;
}

}  // namespace

std::string_view name_of(Phase phase) {
  switch (phase) {
    case Phase::forward:
      return "forward";
    case Phase::backward:
      return "backward";
    case Phase::recompute:
      return "recompute";
    case Phase::update:
      return "update";
  }
  return "?";
}

Phase phase_of_tapes() {
  switch (Tape::pass()) {
    case Tape::Pass::forward:
      return Phase::forward;
    case Tape::Pass::backward:
      return Phase::backward;
    case Tape::Pass::recompute:
      return Phase::recompute;
  }
  return Phase::forward;
}

MemoryRecorder::MemoryRecorder(MemoryTimeline& timeline, memory::Observer also)
    : timeline_(timeline), observer_([this, also = std::move(also)](const memory::Usage& usage) {
        record(usage.live);
        if (also) also(usage);
      }) {
  record(memory::usage().live);
}

void MemoryRecorder::update() { phase_ = Phase::update; }

void MemoryRecorder::record(Index live_bytes) {
  // Scratch of the kernels' threads belongs to the phase that the owner is in.
  if (std::this_thread::get_id() == owner_ && phase_ != Phase::update) phase_ = phase_of_tapes();
  const double ms = std::chrono::duration<double, std::milli>(Clock::now() - start_).count();
  timeline_.push_back({.ms = ms, .phase = phase_, .live_bytes = live_bytes});
}

void write_memory_timeline(const std::filesystem::path& file, const MemoryTimeline& timeline) {
  std::string content;
  for (const MemoryEvent& event : timeline) {
    const ordered_json line = {
        {"ms", event.ms}, {"phase", name_of(event.phase)}, {"live_bytes", event.live_bytes}};
    content += line.dump() + "\n";
  }
  write_file(file, content);
}

MemoryTimeline read_memory_timeline(const std::filesystem::path& file, std::vector<std::string>& damage) {
  MemoryTimeline timeline;
  if (!std::filesystem::exists(file)) return timeline;
  read_json_lines(
      file,
      [&](const ordered_json& json) {
        const auto event = event_of(json);
        if (event) timeline.push_back(*event);
        return event.has_value();
      },
      damage);
  return timeline;
}

}  // namespace tilegrad::train
