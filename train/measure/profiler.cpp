#include "tilegrad/train/measure/profiler.h"

#include <fmt/format.h>

#include <algorithm>

#include "tilegrad/autograd/saved.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/measure/chrome_trace.h"

namespace tilegrad::train {

namespace {

constexpr std::string_view kUpdate = "update";
constexpr int kThread = 1;

// The entry of that op, created if there is none. Programs have few ops.
template <class Entry, class Name>
Entry& entry_of(std::vector<Entry>& entries, const Name& op) {
  const auto found =
      std::find_if(entries.begin(), entries.end(), [&](const Entry& entry) { return entry.op == op; });
  if (found != entries.end()) return *found;
  entries.emplace_back().op = op;
  return entries.back();
}

std::vector<StageTime> stages_of(const kernels::StageTimes& times) {
  std::vector<StageTime> stages;
  for (int i = 0; i < kernels::kStages; ++i) {
    const std::int64_t ns = times.stage_ns[static_cast<std::size_t>(i)];
    const auto stage = static_cast<kernels::Stage>(i);
    if (ns > 0)
      stages.push_back({.stage = std::string(name_of(stage)), .thread_ms = static_cast<double>(ns) / 1e6});
  }
  return stages;
}

}  // namespace

Profiler::SavedByOp& Profiler::saved_by(std::string_view op) { return entry_of(saved_, op); }

void Profiler::add(Phase phase, Index op, const memory::Usage& usage) {
  live_.push_back({.ms = now_us() / 1e3, .op = op, .phase = phase, .live_bytes = usage.live});
  if (usage.live <= peak_bytes_) return;
  peak_bytes_ = usage.live;
  for (SavedByOp& saved : saved_) saved.at_peak = saved.bytes;
}

void Profiler::add_stages(const Span& span, const kernels::StageTimes& times) {
  if (times.tasks_ns == 0) return;
  StagesOfOp& stages = entry_of(stages_, span.op);
  const auto phase = static_cast<std::size_t>(span.phase);
  stages.times[phase] += times;
  stages.thread_ms[phase] += span.self_ms() * kernels::threads();
}

Profile Profiler::profile(std::string_view what) const {
  Profile profile = {.peak_bytes = peak_bytes_};
  Index first = 0, last = 0;
  for (const Span& span : spans_) {
    if (span.op.empty()) {
      first = profile.calls == 0 ? span.number : first;
      last = span.number;
      ++profile.calls;
      profile.ms += span.total_ms();
      profile.outside_ms += span.self_ms();
      continue;
    }
    OpCost& cost = entry_of(profile.ops, span.op);
    PhaseCost& part = cost.in(span.phase);
    ++part.calls;
    part.self_ms += span.self_ms();
    cost.self_ms += span.self_ms();
    if (!span.inside_itself) cost.total_ms += span.total_ms();
  }
  for (const SavedByOp& saved : saved_) {
    OpCost& cost = entry_of(profile.ops, saved.op);
    cost.at_peak = saved.at_peak;
    for (const Phase phase : kPhases) {
      cost.in(phase).saved_bytes = saved.saved_bytes[static_cast<std::size_t>(phase)];
    }
  }
  for (const StagesOfOp& stages : stages_) {
    for (const Phase phase : kPhases) {
      const auto index = static_cast<std::size_t>(phase);
      PhaseCost& cost = entry_of(profile.ops, stages.op).in(phase);
      cost.thread_ms = stages.thread_ms[index];
      cost.stages = stages_of(stages.times[index]);
    }
  }
  profile.of =
      first == last ? fmt::format("{} {}", what, first) : fmt::format("{}s {} to {}", what, first, last);
  std::stable_sort(profile.ops.begin(), profile.ops.end(),
                   [](const OpCost& a, const OpCost& b) { return a.self_ms > b.self_ms; });
  return profile;
}

ChromeTrace Profiler::trace(std::string_view what) const {
  ChromeTrace trace;
  trace.process_name("tilegrad");
  trace.thread_name(kThread, "ops");
  for (const Span& span : spans_) {
    const bool call = span.op.empty();
    trace.add({.name = call ? fmt::format("{} {}", what, span.number) : std::string(span.op),
               .category = call ? "call" : to_string(span.phase),
               .begin_us = span.begin_us,
               .duration_us = span.end_us - span.begin_us,
               .thread = kThread,
               .details = {{"self_us", 1e3 * span.self_ms()},
                           {"saved_bytes", span.saved_bytes},
                           {"live_bytes", span.live_bytes}}});
  }
  for (const MemoryEvent& event : live_) {
    trace.counter("live bytes", 1e3 * event.ms, static_cast<double>(event.live_bytes));
  }
  return trace;
}

MemoryTimeline Profiler::memory(Index number) const {
  const auto call = std::find_if(spans_.begin(), spans_.end(),
                                 [&](const Span& span) { return span.op.empty() && span.number == number; });
  MemoryTimeline timeline;
  if (call == spans_.end()) return timeline;
  const double begin_ms = call->begin_us / 1e3, end_ms = call->end_us / 1e3;
  for (MemoryEvent event : live_) {
    if (event.ms < begin_ms || event.ms > end_ms) continue;
    event.ms -= begin_ms;
    timeline.push_back(event);
  }
  return timeline;
}

Profiler::Call::Call(Profiler& profiler, Index number)
    : profiler_(profiler),
      listening_(*this),
      listening_to_stages_(stages_),
      observing_([this](const memory::Usage& usage) { see(usage); }) {
  {
    const std::lock_guard lock(profiler_.memory_);
    for (SavedByOp& saved : profiler_.saved_) saved.bytes = 0;
  }
  begin({});
  open_.back().number = number;
  see(memory::usage());
}

Profiler::Call::~Call() {
  if (updating_) end();
  end();
}

void Profiler::Call::update() {
  updating_ = true;
  begin(kUpdate);
}

// Inside the allocator's lock. Other threads come here too; what they allocate, as the kernels' threads their scratch
// memory, belongs to the phase that the owner is in.
void Profiler::Call::see(const memory::Usage& usage) {
  const std::lock_guard lock(profiler_.memory_);
  if (std::this_thread::get_id() == owner_) phase_ = current_phase();
  profiler_.add(phase_, ops_, usage);
}

Phase Profiler::Call::current_phase() const { return updating_ ? Phase::update : phase_of_tapes(); }

void Profiler::Call::begin(std::string_view op) {
  if (!op.empty()) ++ops_;
  const bool inside_itself =
      std::any_of(open_.begin(), open_.end(), [&](const Span& span) { return span.op == op; });
  // The clock is read last here and first in end(), so that the profiler's own work counts for the outer
  // span.
  open_.push_back({.op = op,
                   .phase = current_phase(),
                   .inside_itself = inside_itself,
                   .saved_bytes = Saved::total_bytes()});
  open_.back().begin_us = profiler_.now_us();
}

void Profiler::Call::end() {
  const double now = profiler_.now_us();
  Span span = open_.back();
  open_.pop_back();
  span.end_us = now;
  span.saved_bytes = Saved::total_bytes() - span.saved_bytes;
  const std::lock_guard lock(profiler_.memory_);
  span.live_bytes = profiler_.live_.back().live_bytes;
  if (span.phase == Phase::backward) profiler_.saved_by(span.op).bytes += span.saved_bytes;
  profiler_.add_stages(span, std::exchange(stages_, {}));
  if (!open_.empty()) open_.back().parts_us += span.end_us - span.begin_us;
  profiler_.spans_.push_back(span);
}

void Profiler::Call::recorded(std::string_view op, Index saved_bytes) {
  const std::lock_guard lock(profiler_.memory_);
  SavedByOp& saved = profiler_.saved_by(op);
  saved.bytes += saved_bytes;
  saved.saved_bytes[static_cast<std::size_t>(current_phase())] += saved_bytes;
}

}  // namespace tilegrad::train
