#pragma once

#include <functional>
#include <vector>

#include "tilegrad/train/measure/attention_cost.h"

namespace tilegrad::train {

/// Which of its parts a workload has.
struct WorkloadParts {
  bool backward = true;
  bool random_mask = false;  ///< a boolean mask (1, 1, Tq, Tk) of fair coins
  double std = 1;            ///< standard deviation of the operands
};

/// An attention problem on random operands, the same numbers for every kernel, and in every dtype up to
/// rounding.
class AttentionWorkload {
 public:
  /// Throws memory::OutOfMemory if the operands do not fit.
  AttentionWorkload(const AttentionProblem& problem, RandomKey key, const WorkloadParts& parts = {});

  /// What one kernel computed.
  struct Results {
    Tensor out;
    std::vector<Tensor> grads;  ///< dq, dk, dv
  };

  /// Attention by other code, from q, k and v.
  using Attend = std::function<Var(const Var& q, const Var& k, const Var& v)>;

  /// out, with nothing recorded.
  Tensor forward(AttentionKernel kernel) const { return forward(by(kernel)); }
  Tensor forward(const Attend& attend) const;

  /// Forward and backward; `between` is called after the forward pass.
  Results step(AttentionKernel kernel, const std::function<void()>& between = {}) const {
    return step(by(kernel), between);
  }
  Results step(const Attend& attend, const std::function<void()>& between = {}) const;

 private:
  Attend by(AttentionKernel kernel) const;

  AttentionOptions options_;
  Tensor q_, k_, v_, dout_;
  AttentionExtras extras_;
};

}  // namespace tilegrad::train
