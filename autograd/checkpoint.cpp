#include "tilegrad/autograd/checkpoint.h"

#include <utility>
#include <vector>

#include "tilegrad/autograd/deferral.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad {

namespace {

using UnaryFunction = std::function<Var(const Var& x)>;

CheckpointFunction of_one(UnaryFunction fn) {
  return [fn = std::move(fn)](std::span<const Var> xs) { return fn(xs[0]); };
}

struct CheckpointRule {
  static constexpr std::string_view name = "checkpoint";
  CheckpointFunction fn;
  std::vector<Saved> xs;

  void backward(const Tensor& dy, InputGrads& dx) {
    Tape inner;
    std::vector<Var> leaves;
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const Tensor& x = xs[i].get(name, "x");
      leaves.push_back(dx.needs(static_cast<Index>(i)) ? Var::leaf(x) : Var(x));
    }
    // forward: y = fn(xs), with nothing recorded; now the same with everything recorded.
    inner.backward(record_again(leaves), dy);
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      if (leaves[i].tracked() && leaves[i].grad().defined()) dx.add(static_cast<Index>(i), leaves[i].grad());
    }
  }

  // Where the gradient of y goes. Its value is of no use: it is freed, or not even computed.
  Var record_again(std::span<const Var> leaves) const {
    Deferral deferral;
    Var y = fn(leaves);
    y = Var(Tensor::without_elements(y.shape(), y.dtype()), y.cell());
    deferral.finish();
    return y;
  }
};

}  // namespace

Var checkpoint(CheckpointFunction fn, std::span<const Var> xs) {
  if (Tape::recording() == nullptr) return fn(xs);
  Var y;
  bool tracked = false;
  {
    const Tape::Pause pause;
    y = fn(xs);
    tracked = pause.skipped_any();
  }
  if (!tracked || y.tracked()) return y;  // nothing to differentiate, or fn only passed a value through
  const auto make_rule = [&] {
    CheckpointRule rule{.fn = std::move(fn), .xs = {}};
    for (const Var& x : xs) rule.xs.emplace_back(x);
    return rule;
  };
  return record(y.value(), xs, make_rule, When::always);
}

Var checkpoint(UnaryFunction fn, const Var& x) { return checkpoint(of_one(std::move(fn)), std::span(&x, 1)); }

Var recomputed(CheckpointFunction fn, std::span<const Var> xs) {
  const Var y = fn(xs);
  if (Tape::recording() == nullptr) return y;
  return Var(y.value(), y.cell(), std::make_shared<Recomputation>(std::move(fn), xs));
}

Var recomputed(UnaryFunction fn, const Var& x) { return recomputed(of_one(std::move(fn)), std::span(&x, 1)); }

Recomputation::Recomputation(CheckpointFunction fn, std::span<const Var> xs) : fn_(std::move(fn)) {
  for (const Var& x : xs) xs_.emplace_back(x);
}

// Chains of recomputed values may be long, so neither function below recurses along them.
Recomputation::~Recomputation() {
  std::vector<Saved> dying = std::move(xs_);
  while (!dying.empty()) {
    const Saved x = std::move(dying.back());
    dying.pop_back();
    if (x.recomputation() == nullptr || x.recomputation().use_count() > 1) continue;
    for (Saved& from : x.recomputation()->xs_) dying.push_back(std::move(from));
    x.recomputation()->xs_.clear();
  }
}

const Tensor& Recomputation::value(std::string_view op) {
  std::vector<Recomputation*> pending = {this};  // each depends on those after it
  while (!pending.empty()) {
    Recomputation* const next = pending.back();
    const std::size_t before = pending.size();
    for (const Saved& x : next->xs_) {
      Recomputation* const from = x.recomputation().get();
      if (from != nullptr && !from->value_.defined()) pending.push_back(from);
    }
    if (pending.size() > before) continue;
    if (!next->value_.defined()) next->compute(op);
    pending.pop_back();
  }
  return value_;
}

void Recomputation::compute(std::string_view op) {
  std::vector<Var> xs;
  for (const Saved& x : xs_) xs.emplace_back(x.get(op, "x"));
  // A tape of its own marks the pass as a recomputation. Nothing is recorded on it: the ops of the first run
  // are still on the tape that is being walked.
  const Tape inner;
  const Tape::Pause pause;
  value_ = fn_(xs).value();
}

}  // namespace tilegrad
