#pragma once

#include <functional>
#include <initializer_list>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "tilegrad/autograd/tensor.h"

namespace tilegrad {

/// Lazy evaluation, while it lives, of ops that may turn out to be of no use: checkpoint() runs a function again in order to
/// record it, and never reads what its last ops compute.
///
/// The ops that may wait are linear, add and dropout: their rules do not read their outputs. Until an op has been
/// computed, its output has no elements. All that waits is computed, in order, before any other op of this thread begins,
/// and when somebody reads an output or writes to any tensor. So every op sees the values that it would have seen at once,
/// memory is allocated in the same order, and only what waits at the end can be left out.
class Deferral {
 public:
  /// Writes the elements of y, an op's output, from its inputs.
  using Compute = std::function<void(Tensor& y, std::span<const Tensor> xs)>;

  Deferral() : outer_(std::exchange(active_, this)) {}
  /// Forgets what still waits.
  ~Deferral() { active_ = outer_; }
  Deferral(const Deferral&) = delete;
  Deferral& operator=(const Deferral&) = delete;

  /// The one of this thread; null if there is none, or if it computes right now.
  static Deferral* active() { return active_; }
  /// Computes all that waits on this thread.
  static void compute_waiting() {
    if (active_ != nullptr) active_->compute();
  }

  /// An output without elements, which compute() gives it.
  Tensor wait(std::string_view op, const Shape& shape, Dtype dtype, std::initializer_list<Tensor> xs,
              Compute compute);
  /// Forgets the last outputs as long as nobody holds them, and computes the others. Returns how many it has forgotten.
  Index finish();

 private:
  struct Waiting {
    std::string_view op;
    Tensor y;
    std::vector<Tensor> xs;
    Compute compute;
  };

  void compute();

  static inline constinit thread_local Deferral* active_ = nullptr;
  Deferral* outer_;
  std::vector<Waiting> waiting_;
};

/// The output of an op that may wait: compute(y, xs) writes it, at once unless a Deferral is active.
template <class F>
Tensor output_of(std::string_view op, const Shape& shape, Dtype dtype, std::initializer_list<Tensor> xs,
                 F&& compute) {
  if (Deferral* const deferral = Deferral::active()) {
    return deferral->wait(op, shape, dtype, xs, std::forward<F>(compute));
  }
  Tensor y = Tensor::empty(shape, dtype);
  compute(y, std::span(xs.begin(), xs.size()));
  return y;
}

}  // namespace tilegrad
