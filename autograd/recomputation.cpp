#include "tilegrad/autograd/recomputation.h"

#include <utility>

#include "tilegrad/autograd/tape.h"

namespace tilegrad {

Recomputation::Recomputation(CheckpointFunction fn, std::span<const Var> xs) : fn_(std::move(fn)) {
  for (const Var& x : xs) xs_.emplace_back(x);
}

const Tensor& Recomputation::value(std::string_view op) {
  if (value_.defined()) return value_;
  std::vector<Var> xs;
  for (const Saved& x : xs_) xs.emplace_back(x.get(op, "x"));
  // A tape of its own marks the pass as a recomputation. Nothing is recorded on it: the ops of the first run
  // are still on the tape that walks back.
  const Tape inner;
  const Tape::Pause pause;
  value_ = fn_(xs).value();
  return value_;
}

}  // namespace tilegrad
