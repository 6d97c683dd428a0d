#pragma once

#include <atomic>
#include <chrono>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/base/memory.h"
#include "tilegrad/kernels/attention/stages.h"
#include "tilegrad/train/measure/memory_timeline.h"
#include "tilegrad/train/measure/profile.h"

namespace tilegrad::train {

class ChromeTrace;

/// Records time and memory, call by call: training steps, or the repetitions of a measurement. It is the one
/// recorder; a table of ops, a trace and a timeline of the live bytes are three views of what it holds.
class Profiler {
 public:
  class Call;

  Profiler() = default;
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  /// Of the finished calls. `what` is the word for one: with "step" they are "steps 2 to 4".
  Profile profile(std::string_view what) const;
  /// The same calls as a timeline: calls, with the ops inside them, nested; and the live bytes as a counter.
  ChromeTrace trace(std::string_view what) const;
  /// The live bytes through the finished call of this number, from its beginning; empty if there is none.
  MemoryTimeline memory(Index number) const;

 private:
  using Clock = std::chrono::steady_clock;

  // An op that is running, or a whole call.
  struct Span {
    std::string_view op = {};  // empty: a call
    Index number = 0;          // of a call
    Phase phase = Phase::forward;
    bool inside_itself = false;
    double begin_us = 0, end_us = 0;
    double parts_us = 0;    // of the spans directly inside of it
    Index saved_bytes = 0;  // at its end, minus those at its beginning if it released what it had saved
    Index live_bytes = 0;   // at its end
    double total_ms() const { return (end_us - begin_us) / 1e3; }
    double self_ms() const { return (end_us - begin_us - parts_us) / 1e3; }
  };
  // What the rules of an op save.
  struct SavedByOp {
    std::string_view op = {};
    std::array<Index, kPhases.size()> saved_bytes = {};
    Index bytes = 0;    // now
    Index at_peak = 0;  // when most bytes were live
  };

  // The stages that kernels report inside of an op.
  struct StagesOfOp {
    std::string_view op = {};
    std::array<kernels::StageTimes, kPhases.size()> times = {};
    std::array<double, kPhases.size()> thread_ms = {};  // its self time, on every thread
  };

  double now_us() const { return std::chrono::duration<double, std::micro>(Clock::now() - start_).count(); }
  SavedByOp& saved_by(std::string_view op);
  void add(Phase phase, Index op, const memory::Usage& usage);
  void add_stages(const Span& span, const kernels::StageTimes& times);

  Clock::time_point start_ = Clock::now();
  std::vector<Span> spans_;  // in the order in which they ended
  std::vector<StagesOfOp> stages_;
  std::mutex memory_;  // guards what follows: other threads allocate as well
  std::vector<SavedByOp> saved_;
  MemoryTimeline live_;  // ms since start_
  Index peak_bytes_ = 0;
};

/// One call to be recorded, as long as it lives. It belongs to the thread that made it.
class Profiler::Call final : OpListener {
 public:
  Call(Profiler& profiler, Index number);
  ~Call() override;
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  /// The tapes are done; from here on the call updates its model.
  void update();

 private:
  void begin(std::string_view op) override;
  void end() override;
  void recorded(std::string_view op, Index saved_bytes) override;
  void see(const memory::Usage& usage);
  Phase current_phase() const;

  Profiler& profiler_;
  std::vector<Span> open_;  // the innermost one last
  bool updating_ = false;
  Phase phase_ = Phase::forward;
  std::atomic<Index> ops_ = 0;  // that have begun; other threads read it
  std::thread::id owner_ = std::this_thread::get_id();
  ListenScope listening_;
  kernels::StageTimes stages_;  // of the innermost op so far
  kernels::StageTimesScope listening_to_stages_;
  memory::ObserverScope observing_;  // last, because it calls the rest
};

}  // namespace tilegrad::train
