#include "tilegrad/train/measure/profiler.h"

#include <fmt/format.h>

#include <algorithm>

#include "tilegrad/autograd/saved.h"

namespace tilegrad::train {

namespace {

constexpr std::string_view kUpdate = "update";
constexpr int kThread = 1;

// The entry of that op, which is made if there is none. Programs have few ops.
template <class Entry, class Name>
Entry& entry_of(std::vector<Entry>& entries, const Name& op) {
  const auto found =
      std::find_if(entries.begin(), entries.end(), [&](const Entry& entry) { return entry.op == op; });
  if (found != entries.end()) return *found;
  entries.emplace_back().op = op;
  return entries.back();
}

}  // namespace

Profiler::Kept& Profiler::kept_by(std::string_view op) { return entry_of(kept_, op); }

// Inside the allocator's lock. Threads of the kernels come here too, but only while the one that runs the ops
// waits for them.
void Profiler::see(const memory::Usage& usage) {
  live_.push_back({.us = now_us(), .bytes = usage.live});
  if (usage.live <= peak_bytes_) return;
  peak_bytes_ = usage.live;
  for (Kept& kept : kept_) kept.at_peak = kept.bytes;
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
  for (const Kept& kept : kept_) {
    OpCost& cost = entry_of(profile.ops, kept.op);
    cost.at_peak = kept.at_peak;
    for (const Phase phase : kPhases) {
      cost.in(phase).saved_bytes = kept.saved_bytes[static_cast<std::size_t>(phase)];
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
               .category = call ? "call" : name_of(span.phase),
               .begin_us = span.begin_us,
               .duration_us = span.end_us - span.begin_us,
               .thread = kThread,
               .details = {{"self_us", 1e3 * span.self_ms()},
                           {"saved_bytes", span.saved_bytes},
                           {"live_bytes", span.live_bytes}}});
  }
  for (const LiveBytes& live : live_) {
    trace.counter("live bytes", live.us, static_cast<double>(live.bytes));
  }
  return trace;
}

Profiler::Call::Call(Profiler& profiler, Index number)
    : profiler_(profiler), listening_(*this), observing_(memory_observer()) {
  for (Kept& kept : profiler_.kept_) kept.bytes = 0;
  profiler_.see(memory::usage());
  begin({});
  open_.back().number = number;
}

Profiler::Call::~Call() {
  if (updating_) end();
  end();
}

void Profiler::Call::update() {
  updating_ = true;
  begin(kUpdate);
}

memory::Observer Profiler::Call::memory_observer() {
  return [this](const memory::Usage& usage) { profiler_.see(usage); };
}

Phase Profiler::Call::current_phase() const { return updating_ ? Phase::update : phase_of_tapes(); }

void Profiler::Call::begin(std::string_view op) {
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
  span.live_bytes = profiler_.live_.back().bytes;
  if (span.phase == Phase::backward) profiler_.kept_by(span.op).bytes += span.saved_bytes;
  if (!open_.empty()) open_.back().parts_us += span.end_us - span.begin_us;
  profiler_.spans_.push_back(span);
}

void Profiler::Call::recorded(std::string_view op, Index saved_bytes) {
  Kept& kept = profiler_.kept_by(op);
  kept.bytes += saved_bytes;
  kept.saved_bytes[static_cast<std::size_t>(current_phase())] += saved_bytes;
}

}  // namespace tilegrad::train
