#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string_view>
#include <utility>

/// Where the time of attention goes, stage by stage, for profilers. A kernel marks the end of each stage of a tile; if
/// nobody listens, a mark is a null check.
namespace tilegrad::kernels {

/// In the order of a table. Forward and backward share the first three and the last two.
enum class Stage {
  prepare,        ///< rows copied, widened, transposed or packed
  scores,         ///< Q Kᵀ, and masks if a pass of their own applies them
  softmax,        ///< forward: P and the sums of rows
  values,         ///< forward: P V
  delta,          ///< backward: rowsum(dO ⊙ O)
  probabilities,  ///< backward of flash: P = exp(Q Kᵀ − LSE), the scores once more
  dp,             ///< backward of naive: dO Vᵀ
  ds,             ///< backward of naive: dS = P ⊙ (dP − delta)
  dp_and_ds,      ///< backward of flash: both, in the registers of the product
  dv,             ///< Pᵀ dO
  dk,             ///< dSᵀ Q
  wait,           ///< until it is this tile's turn to add to dQ
  dq,             ///< dS K
  store,          ///< results merged, normalised, transposed, rounded and written
  other,          ///< what is left of a task
};
inline constexpr int kStages = static_cast<int>(Stage::other) + 1;
std::string_view name_of(Stage stage);

/// What all threads together spent in each stage of the kernels' tasks, and in these tasks. Whatever a task does is in
/// some stage, so the stages add up to the tasks.
struct StageTimes {
  std::array<std::int64_t, kStages> stage_ns = {};
  std::int64_t tasks_ns = 0;

  StageTimes& operator+=(const StageTimes& other);
};

/// While it lives, attention that this thread calls adds its times to `times`. Of nested scopes, the innermost one does.
class StageTimesScope {
 public:
  explicit StageTimesScope(StageTimes& times) : outer_(std::exchange(listening_, &times)) {}
  ~StageTimesScope() { listening_ = outer_; }
  StageTimesScope(const StageTimesScope&) = delete;
  StageTimesScope& operator=(const StageTimesScope&) = delete;

  /// Those of this thread, or nullptr.
  static StageTimes* listening() { return listening_; }

 private:
  static inline constinit thread_local StageTimes* listening_ = nullptr;
  StageTimes* outer_;
};

/// One thread's clock. In a cache line of its own, because its neighbour belongs to another thread.
class alignas(64) StageClock {
 public:
  void begin_task();
  void end(Stage stage);
  void end_task();
  const StageTimes& times() const { return times_; }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point task_ = {}, stage_ = {};  // when they began
  StageTimes times_;
};

/// How a kernel marks its stages: on the clock of its thread, if there is one.
class StageMarks {
 public:
  StageMarks() = default;
  explicit StageMarks(StageClock* clock) : clock_(clock) {}
  /// What this thread did since the last mark, or since its task began, belongs to `stage`.
  void end(Stage stage) const {
    if (clock_ != nullptr) [[unlikely]]
      clock_->end(stage);
  }
  void begin_task() const {
    if (clock_ != nullptr) clock_->begin_task();
  }
  void end_task() const {
    if (clock_ != nullptr) clock_->end_task();
  }

 private:
  StageClock* clock_ = nullptr;
};

}  // namespace tilegrad::kernels
