#include "tilegrad/kernels/attention/stages.h"

namespace tilegrad::kernels {

namespace {

std::int64_t ns_between(std::chrono::steady_clock::time_point a, std::chrono::steady_clock::time_point b) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(b - a).count();
}

}  // namespace

std::string_view name_of(Stage stage) {
  constexpr std::array<std::string_view, kStages> kNames = {"rows prepared",
                                                            "Q Kᵀ",
                                                            "softmax",
                                                            "P V",
                                                            "delta = rowsum(dO ⊙ O)",
                                                            "P = exp(Q Kᵀ − LSE)",
                                                            "dP = dO Vᵀ",
                                                            "dS = P ⊙ (dP − delta)",
                                                            "dS = P ⊙ (dO Vᵀ − delta)",
                                                            "dV = Pᵀ dO",
                                                            "dK = dSᵀ Q",
                                                            "waiting to add to dQ",
                                                            "dQ = dS K",
                                                            "results stored",
                                                            "other"};
  return kNames[static_cast<std::size_t>(stage)];
}

StageTimes& StageTimes::operator+=(const StageTimes& other) {
  for (std::size_t i = 0; i < stage_ns.size(); ++i) stage_ns[i] += other.stage_ns[i];
  tasks_ns += other.tasks_ns;
  return *this;
}

void StageClock::begin_task() { task_ = stage_ = Clock::now(); }

void StageClock::end(Stage stage) {
  const Clock::time_point now = Clock::now();
  times_.stage_ns[static_cast<std::size_t>(stage)] += ns_between(stage_, now);
  stage_ = now;
}

void StageClock::end_task() {
  end(Stage::other);
  times_.tasks_ns += ns_between(task_, stage_);
}

}  // namespace tilegrad::kernels
