#include <algorithm>

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/ops/checks.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/kernels/elementwise.h"
#include "tilegrad/kernels/linear_cross_entropy.h"
#include "tilegrad/kernels/softmax.h"

namespace tilegrad {

namespace {

// y = (1/n) Σ_i (lse_i − logits[i, target_i]):  dlogits_ij = dy/n (exp(logits_ij − lse_i) − [j = target_i]).
// The softmax is formed in dlogits itself and nowhere else.
struct CrossEntropyRule {
  static constexpr std::string_view name = "cross_entropy";
  Saved logits, max, log_sum, targets;  // lse_i = max_i + log_sum_i
  Index counted;

  void backward(const Tensor& dy, InputGrads& dx) {
    with_float_type(name, dy.dtype(), [&]<class T>() {
      kernels::cross_entropy_backward<T>(dx.grad_mat<T>(0),
                                         static_cast<T>(dy.item() / static_cast<double>(counted)),
                                         logits.get(name, "logits").mat<T>(), max.get(name, "max").view<T>(),
                                         log_sum.get(name, "log_sum").view<T>(),
                                         targets.get(name, "targets").view<std::int32_t>(), kIgnored);
    });
  }
};

// Checks the targets of logits (..., V) and returns how many of them count.
Index count_targets(const OpScope& op, const Tensor& targets, const Shape& logits) {
  const Shape outer(logits.dims().first(static_cast<std::size_t>(logits.rank() - 1)));
  op.check(targets.shape() == outer, "targets are {}, logits {}", targets.shape(), logits);
  const auto target = targets.view<std::int32_t>();
  check_ids(op, "target", target, logits.last(), kIgnored);
  const Index counted = std::ssize(target) - std::count(target.begin(), target.end(), kIgnored);
  op.check(counted > 0, "no position counts among {}", targets.shape());
  return counted;
}

// y = cross_entropy(x weightᵀ). The forward pass has a block of logits at hand, so it computes the gradients from it,
// those of y = 1. The other way, logits formed again in backward, would cost one more product with the weight, the
// largest of a language model, and save no memory at the peak: backward begins with this rule, when all activations
// are still alive. What is lost is a forward pass that is recorded and never walked back.
struct LinearCrossEntropyRule {
  static constexpr std::string_view name = "linear_cross_entropy";
  Saved dx_of_one, dweight_of_one;

  void backward(const Tensor& dy, InputGrads& dx) {
    hand_over(dx, 0, dx_of_one.get(name, "dx"), dy.item());
    hand_over(dx, 1, dweight_of_one.get(name, "dweight"), dy.item());
  }

  // Nobody else has this gradient, so it is scaled in place.
  static void hand_over(InputGrads& dx, Index i, Tensor grad, double dy) {
    if (!dx.needs(i)) return;
    if (dy != 1) {
      with_float_type(name, grad.dtype(), [&]<class T>() {
        kernels::scale<T>(grad.mut<T>(), grad.view<T>(), static_cast<T>(dy));
      });
    }
    dx.add(i, grad);
  }
};

}  // namespace

Var cross_entropy(const Var& logits, const Tensor& targets) {
  const OpScope op(CrossEntropyRule::name);
  op.check(logits.rank() >= 1, "logits need at least one axis, they are {}", logits.shape());
  const Index counted = count_targets(op, targets, logits.shape());
  Tensor max = Tensor::empty(targets.shape(), logits.dtype());
  Tensor log_sum = Tensor::empty_like(max);
  Tensor y = Tensor::empty({}, logits.dtype());
  op.with_float_type(y.dtype(), [&]<class T>() {
    const double total = kernels::cross_entropy<T>(max.mut<T>(), log_sum.mut<T>(), logits.value().mat<T>(),
                                                   targets.view<std::int32_t>(), kIgnored);
    y.mut<T>()[0] = static_cast<T>(total / static_cast<double>(counted));
  });
  return record(y, {logits}, [&] {
    return CrossEntropyRule{.logits = Saved(logits),
                            .max = Saved(max),
                            .log_sum = Saved(log_sum),
                            .targets = Saved(targets),
                            .counted = counted};
  });
}

Var linear_cross_entropy(const Var& x, const Var& weight, const Tensor& targets) {
  const OpScope op(LinearCrossEntropyRule::name);
  check_linear(op, x, weight);
  const Index counted = count_targets(op, targets, x.shape().with(-1, weight.dim(0)));
  Tensor y = Tensor::empty({}, x.dtype()), dx, dweight;
  if (Tape::recording() != nullptr) {
    const memory::CategoryScope scope(memory::Category::gradients);
    if (x.tracked()) dx = Tensor::empty_like(x.value());
    if (weight.tracked()) dweight = Tensor::empty_like(weight.value());
  }
  op.with_float_type(y.dtype(), [&]<class T>() {
    const auto grad = [](Tensor& d) {
      return d.defined() ? Grad<kernels::Mat<T>>{d.mut_mat<T>()} : Grad<kernels::Mat<T>>();
    };
    const double n = static_cast<double>(counted);
    const double total =
        kernels::linear_cross_entropy<T>(grad(dx), grad(dweight), x.value().mat<T>(), weight.value().mat<T>(),
                                         targets.view<std::int32_t>(), kIgnored, static_cast<T>(1 / n));
    y.mut<T>()[0] = static_cast<T>(total / n);
  });
  return record(y, {x, weight}, [&] {
    return LinearCrossEntropyRule{.dx_of_one = Saved(dx), .dweight_of_one = Saved(dweight)};
  });
}

}  // namespace tilegrad
