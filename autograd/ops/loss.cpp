#include <algorithm>

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/ops/checks.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"
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

}  // namespace

Var cross_entropy(const Var& logits, const Tensor& targets) {
  const OpScope op(CrossEntropyRule::name);
  op.check(logits.rank() >= 1, "logits need at least one axis, they are {}", logits.shape());
  const Index vocabulary = logits.dim(-1);
  const Shape outer(logits.shape().dims().first(static_cast<std::size_t>(logits.rank() - 1)));
  op.check(targets.shape() == outer, "targets are {}, logits {}", targets.shape(), logits.shape());
  const auto target = targets.view<std::int32_t>();
  check_ids(op, "target", target, vocabulary, kIgnored);
  const Index counted = std::ssize(target) - std::count(target.begin(), target.end(), kIgnored);
  op.check(counted > 0, "no position counts among {}", targets.shape());

  Tensor max = Tensor::empty(targets.shape(), logits.dtype());
  Tensor log_sum = Tensor::empty_like(max);
  Tensor y = Tensor::empty({}, logits.dtype());
  op.with_float_type(y.dtype(), [&]<class T>() {
    const double total =
        kernels::cross_entropy<T>(max.mut<T>(), log_sum.mut<T>(), logits.value().mat<T>(), target, kIgnored);
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

}  // namespace tilegrad
