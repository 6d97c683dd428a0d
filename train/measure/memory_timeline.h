#pragma once

#include <array>
#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "tilegrad/base/memory.h"

/// memory.jsonl: how the live bytes rise and fall through one training step, one change a line, in the order
/// of things: ms since the step began, phase (forward, backward, recompute or update), live_bytes.
namespace tilegrad::train {

/// The parts of a training step. Recomputation is what a checkpoint runs again in the midst of backward.
enum class Phase { forward, backward, recompute, update };
inline constexpr std::array kPhases = {Phase::forward, Phase::backward, Phase::recompute, Phase::update};
std::string_view name_of(Phase phase);
/// What the tapes of this thread are about, update aside.
Phase phase_of_tapes();

struct MemoryEvent {
  double ms = 0;
  Phase phase = Phase::forward;
  Index live_bytes = 0;  ///< behind the change
};
using MemoryTimeline = std::vector<MemoryEvent>;

/// Records every change of the live bytes while it lives. The tapes of the thread that made it tell the
/// phase, until `update()` says that they are done. `also` sees the changes too, for who observes around it.
class MemoryRecorder {
 public:
  explicit MemoryRecorder(MemoryTimeline& timeline, memory::Observer also = {});
  void update();

 private:
  using Clock = std::chrono::steady_clock;

  void record(Index live_bytes);

  MemoryTimeline& timeline_;
  Clock::time_point start_ = Clock::now();
  std::thread::id owner_ = std::this_thread::get_id();
  Phase phase_ = Phase::forward;
  memory::ObserverScope observer_;  // last, because it calls the rest
};

void write_memory_timeline(const std::filesystem::path& file, const MemoryTimeline& timeline);

/// Empty if the file is missing. Lines that are not what they should be are left out and told in `damage`.
MemoryTimeline read_memory_timeline(const std::filesystem::path& file, std::vector<std::string>& damage);

}  // namespace tilegrad::train
