#include "tilegrad/autograd/deferral.h"

#include <utility>

#include "tilegrad/autograd/op_listener.h"

namespace tilegrad {

Tensor Deferral::wait(std::string_view op, const Shape& shape, Dtype dtype, std::initializer_list<Tensor> xs,
                      Compute compute) {
  const Tensor y = Tensor::without_elements(shape, dtype);
  waiting_.push_back({.op = op, .y = y, .xs = xs, .compute = std::move(compute)});
  return y;
}

Index Deferral::finish() {
  Index forgotten = 0;
  for (; !waiting_.empty() && waiting_.back().y.unique(); ++forgotten) waiting_.pop_back();
  compute();
  return forgotten;
}

void Deferral::compute() {
  if (waiting_.empty()) return;
  // Nothing waits meanwhile. If one op fails, the others are lost, as if they had never been reached.
  struct Pause {
    Deferral* const paused = std::exchange(active_, nullptr);
    ~Pause() { active_ = paused; }
  } const pause;
  for (Waiting& next : std::exchange(waiting_, {})) {
    const OpScope scope(next.op);
    const std::uint64_t version = next.y.version();
    next.y.allocate();
    next.compute(next.y, next.xs);
    next.y.storage_->version = version;  // a rule that saved y did so before
    next = {};                           // frees what nobody else holds
  }
}

}  // namespace tilegrad
