#include "autograd/checkpoint.h"

#include <utility>
#include <vector>

#include "autograd/ops.h"
#include "autograd/saved.h"
#include "autograd/tape.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"

namespace tilegrad {

namespace {

// The saved inputs again, as leaves of an inner tape where their gradient is wanted.
std::vector<Var> leaves_of(const std::vector<Saved>& xs, std::string_view op, const InputGrads& dx) {
  std::vector<Var> leaves;
  for (std::size_t i = 0; i < xs.size(); ++i) {
    const Tensor& x = xs[i].get(op, "x");
    leaves.push_back(dx.wanted(static_cast<int>(i)) ? Var::leaf(x) : Var(x));
  }
  return leaves;
}

void hand_over(const std::vector<Var>& leaves, InputGrads& dx) {
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    if (leaves[i].tracked() && leaves[i].grad().defined()) dx.add(static_cast<int>(i), leaves[i].grad());
  }
}

struct CheckpointRule {
  static constexpr std::string_view name = "checkpoint";
  CheckpointFunction fn;
  std::vector<Saved> xs;

  void backward(const Tensor& dy, InputGrads& dx) {
    Tape inner;
    const std::vector<Var> leaves = leaves_of(xs, name, dx);
    // forward: y = fn(xs), with nothing recorded; now the same with everything recorded.
    inner.backward(fn(leaves), dy);
    hand_over(leaves, dx);
  }
};

// y = h Wᵀ + bias, h = fn(xs):  dh = dy W, dW = dyᵀ h, dbias = Σ_rows dy. The inputs are xs, weight and bias.
struct LinearRecomputingRule {
  static constexpr std::string_view name = "linear_recomputing";
  CheckpointFunction fn;
  std::vector<Saved> xs;
  Saved weight;

  void backward(const Tensor& dy, InputGrads& dx) {
    Tape inner;
    const std::vector<Var> leaves = leaves_of(xs, name, dx);
    const Var h = fn(leaves);
    with_float_type(name, dy.dtype(), [&]<class T>() { backward_product<T>(dy, h.value(), dx); });
    if (!h.tracked()) return;
    const Tensor dh = gradient_of(h.value(), dy);
    inner.backward(h, dh);
    hand_over(leaves, dx);
  }

  template <class T>
  void backward_product(const Tensor& dy, const Tensor& h, InputGrads& dx) const {
    const int w = static_cast<int>(xs.size()), b = w + 1;
    if (dx.wanted(w)) {
      const InputGrads::Slot slot = dx.slot(w);
      kernels::gemm<T>(slot.grad->mut_mat<T>(), T{1}, dy.mat<T>(), kernels::Op::transpose, h.mat<T>(),
                       kernels::Op::none, slot.write == Write::accumulate ? T{1} : T{0});
    }
    if (dx.wanted(b)) {
      const InputGrads::Slot slot = dx.slot(b);
      kernels::add_bias_backward<T>(slot.grad->mut<T>(), slot.write, dy.mat<T>());
    }
  }

  Tensor gradient_of(const Tensor& h, const Tensor& dy) const {
    const memory::CategoryScope scope(memory::Category::gradients);
    Tensor dh = Tensor::empty_like(h);
    with_float_type(name, dy.dtype(), [&]<class T>() {
      kernels::gemm<T>(dh.mut_mat<T>(), T{1}, dy.mat<T>(), kernels::Op::none,
                       weight.get(name, "weight").mat<T>(), kernels::Op::none, T{0});
    });
    return dh;
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
    for (const Var& x : xs) rule.xs.emplace_back(x.value());
    return rule;
  };
  return record(y.value(), xs, make_rule, When::always);
}

Var checkpoint(std::function<Var(const Var& x)> fn, const Var& x) {
  return checkpoint([fn = std::move(fn)](std::span<const Var> xs) { return fn(xs[0]); }, std::span(&x, 1));
}

Var linear_recomputing(CheckpointFunction fn, std::span<const Var> xs, const Var& weight, const Var& bias) {
  const auto product = [&](const Var& h) {
    return bias.value().defined() ? linear(h, weight, bias) : linear(h, weight);
  };
  if (Tape::recording() == nullptr) return product(fn(xs));
  Tensor y;
  {
    const Tape::Pause pause;
    y = product(fn(xs)).value();
  }
  std::vector<Var> inputs(xs.begin(), xs.end());
  inputs.insert(inputs.end(), {weight, bias});
  return record(y, inputs, [&] {
    LinearRecomputingRule rule{.fn = std::move(fn), .xs = {}, .weight = Saved(weight.value())};
    for (const Var& x : xs) rule.xs.emplace_back(x.value());
    return rule;
  });
}

}  // namespace tilegrad
