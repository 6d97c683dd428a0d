#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/base/memory.h"
#include "tilegrad/train/measure/chrome_trace.h"
#include "tilegrad/train/measure/profile.h"

namespace tilegrad::train {

/// Collects what ops cost, call by call: steps of training, or the repetitions of a measurement.
class Profiler {
 public:
  class Call;

  Profiler() = default;
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  /// Of the calls that are over. `what` is the word for one: with "step" they are "steps 2 to 4".
  Profile profile(std::string_view what) const;
  /// The same calls as a timeline: calls, in them ops, in them ops; and the live bytes as a counter.
  ChromeTrace trace(std::string_view what) const;

 private:
  using Clock = std::chrono::steady_clock;

  // An op at work, or a whole call.
  struct Span {
    std::string_view op = {};  // empty: a call
    Index number = 0;          // of a call
    Phase phase = Phase::forward;
    bool inside_itself = false;
    double begin_us = 0, end_us = 0;
    double parts_us = 0;    // of the spans right inside of it
    Index saved_bytes = 0;  // when it ended, less than when it began if it let go of what it saved
    Index live_bytes = 0;   // when it ended
    double total_ms() const { return (end_us - begin_us) / 1e3; }
    double self_ms() const { return (end_us - begin_us - parts_us) / 1e3; }
  };
  // What the rules of an op save and keep.
  struct Kept {
    std::string_view op = {};
    std::array<Index, kPhases.size()> saved_bytes = {};
    Index bytes = 0;    // now
    Index at_peak = 0;  // when most were live
  };
  struct LiveBytes {
    double us = 0;
    Index bytes = 0;
  };

  double now_us() const { return std::chrono::duration<double, std::micro>(Clock::now() - start_).count(); }
  Kept& kept_by(std::string_view op);
  void see(const memory::Usage& usage);

  Clock::time_point start_ = Clock::now();
  std::vector<Span> spans_;  // in the order in which they ended
  std::vector<Kept> kept_;
  std::vector<LiveBytes> live_;
  Index peak_bytes_ = 0;
};

/// One call to be profiled, as long as it lives. It belongs to the thread that made it.
class Profiler::Call final : OpListener {
 public:
  Call(Profiler& profiler, Index number);
  ~Call() override;
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  /// The tapes are done; from here on the call updates its model.
  void update();

  /// For an observer inside of this one, which would hide the memory from it.
  memory::Observer memory_observer();

 private:
  void begin(std::string_view op) override;
  void end() override;
  void recorded(std::string_view op, Index saved_bytes) override;
  Phase current_phase() const;

  Profiler& profiler_;
  std::vector<Span> open_;  // the innermost one last
  bool updating_ = false;
  ListenScope listening_;
  memory::ObserverScope observing_;  // last, because it calls the rest
};

}  // namespace tilegrad::train
