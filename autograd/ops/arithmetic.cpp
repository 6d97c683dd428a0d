#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/ops/checks.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/kernels/elementwise.h"
#include "tilegrad/kernels/functions.h"

namespace tilegrad {

namespace {

// y = a + b:  da = dy, db = dy. Nothing is copied: the gradient is handed on.
struct AddRule {
  static constexpr std::string_view name = "add";

  void backward(const Tensor& dy, InputGrads& dx) {
    if (dx.needs(0)) dx.add(0, dy);
    if (dx.needs(1)) dx.add(1, dy);
  }
};

// y = a − b:  da = dy, db = −dy.
struct SubRule {
  static constexpr std::string_view name = "sub";

  void backward(const Tensor& dy, InputGrads& dx) {
    if (dx.needs(0)) dx.add(0, dy);
    if (!dx.needs(1)) return;
    with_float_type(name, dy.dtype(),
                    [&]<class T>() { kernels::scale_backward<T>(dx.grad<T>(1), dy.view<T>(), T{-1}); });
  }
};

// y = a ⊙ b:  da = dy ⊙ b, db = dy ⊙ a.
struct MulRule {
  static constexpr std::string_view name = "mul";
  Saved a, b;

  void backward(const Tensor& dy, InputGrads& dx) {
    contribute(dx, 0, dy, b, "b");
    contribute(dx, 1, dy, a, "a");
  }

  static void contribute(InputGrads& dx, Index i, const Tensor& dy, const Saved& factor,
                         std::string_view what) {
    if (!dx.needs(i)) return;
    const Tensor& other = factor.get(name, what);
    with_float_type(name, dy.dtype(), [&]<class T>() {
      kernels::mul_backward<T>(dx.grad<T>(i), dy.view<T>(), other.view<T>());
    });
  }
};

// y = s x:  dx = s dy.
struct ScaleRule {
  static constexpr std::string_view name = "scale";
  double s;

  void backward(const Tensor& dy, InputGrads& dx) {
    with_float_type(name, dy.dtype(), [&]<class T>() {
      kernels::scale_backward<T>(dx.grad<T>(0), dy.view<T>(), static_cast<T>(s));
    });
  }
};

// y = x + s:  dx = dy.
struct ShiftRule {
  static constexpr std::string_view name = "shift";

  void backward(const Tensor& dy, InputGrads& dx) { dx.add(0, dy); }
};

// y_n = x_n + bias:  dx = dy, dbias = Σ_n dy_n.
struct AddBiasRule {
  static constexpr std::string_view name = "add_bias";

  void backward(const Tensor& dy, InputGrads& dx) {
    if (dx.needs(0)) dx.add(0, dy);
    if (!dx.needs(1)) return;
    with_float_type(name, dy.dtype(),
                    [&]<class T>() { kernels::add_bias_backward<T>(dx.grad<T>(1), dy.mat<T>()); });
  }
};

// y of the shape of a, computed from both by `kernel`, one of kernels::sub, mul.
template <class Kernel>
Tensor elementwise(const OpScope& op, const Var& a, const Var& b, Kernel&& kernel) {
  check_same(op, a, b);
  Tensor y = Tensor::empty_like(a.value());
  op.with_float_type(y.dtype(), [&]<class T>() {
    kernel.template operator()<T>(y.mut<T>(), a.value().view<T>(), b.value().view<T>());
  });
  return y;
}

}  // namespace

Var add(const Var& a, const Var& b) {
  const OpScope op(AddRule::name, OpScope::MayWait());
  check_same(op, a, b);
  const auto compute = [](Tensor& y, std::span<const Tensor> xs) {
    with_float_type(AddRule::name, y.dtype(),
                    [&]<class T>() { kernels::add<T>(y.mut<T>(), xs[0].view<T>(), xs[1].view<T>()); });
  };
  const Tensor y = output_of(op.name(), a.shape(), a.dtype(), {a.value(), b.value()}, compute);
  return record(y, {a, b}, [] { return AddRule{}; });
}

Var sub(const Var& a, const Var& b) {
  const OpScope op(SubRule::name);
  const Tensor y = elementwise(op, a, b, []<class T>(auto... xs) { kernels::sub<T>(xs...); });
  return record(y, {a, b}, [] { return SubRule{}; });
}

Var mul(const Var& a, const Var& b) {
  const OpScope op(MulRule::name);
  const Tensor y = elementwise(op, a, b, []<class T>(auto... xs) { kernels::mul<T>(xs...); });
  // A factor is kept only if the other one needs it.
  return record(y, {a, b}, [&] {
    return MulRule{.a = b.tracked() ? Saved(a) : Saved(), .b = a.tracked() ? Saved(b) : Saved()};
  });
}

Var scale(const Var& x, double s) {
  const OpScope op(ScaleRule::name);
  Tensor y = Tensor::empty_like(x.value());
  op.with_float_type(
      y.dtype(), [&]<class T>() { kernels::scale<T>(y.mut<T>(), x.value().view<T>(), static_cast<T>(s)); });
  return record(y, {x}, [&] { return ScaleRule{s}; });
}

Var shift(const Var& x, double s) {
  const OpScope op(ShiftRule::name);
  Tensor y = Tensor::empty_like(x.value());
  op.with_float_type(
      y.dtype(), [&]<class T>() { kernels::shift<T>(y.mut<T>(), x.value().view<T>(), static_cast<T>(s)); });
  return record(y, {x}, [] { return ShiftRule{}; });
}

Var add_bias(const Var& x, const Var& bias) {
  const OpScope op(AddBiasRule::name);
  check_along_last(op, "bias", x, bias);
  Tensor y = Tensor::empty_like(x.value());
  op.with_float_type(y.dtype(), [&]<class T>() {
    kernels::add_bias<T>(y.mut_mat<T>(), x.value().mat<T>(), bias.value().view<T>());
  });
  return record(y, {x, bias}, [] { return AddBiasRule{}; });
}

}  // namespace tilegrad
