#include "tilegrad/kernels/dropout.h"

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad {

namespace {

// y = x ⊙ mask / (1 − p):  dx = dy ⊙ mask / (1 − p), with the mask drawn again from the key.
struct DropoutRule {
  static constexpr std::string_view name = "dropout";
  double p;
  RandomKey key;

  void backward(const Tensor& dy, InputGrads& dx) {
    with_float_type(name, dy.dtype(),
                    [&]<class T>() { kernels::dropout_backward<T>(dx.grad<T>(0), dy.view<T>(), p, key); });
  }
};

}  // namespace

Var dropout(const Var& x, double p, RandomKey key) {
  if (p == 0) return x;
  const OpScope op(DropoutRule::name, OpScope::MayWait());
  op.check(p > 0 && p < 1, "p is {}, not in [0, 1)", p);
  const auto compute = [p, key](Tensor& y, std::span<const Tensor> xs) {
    with_float_type(DropoutRule::name, y.dtype(),
                    [&]<class T>() { kernels::dropout<T>(y.mut<T>(), xs[0].view<T>(), p, key); });
  };
  const Tensor y = output_of(op.name(), x.shape(), x.dtype(), {x.value()}, compute);
  return record(y, {x}, [&] { return DropoutRule{.p = p, .key = key}; });
}

}  // namespace tilegrad
