#include "tilegrad/kernels/functions.h"

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/ops/checks.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad {

namespace {

// y = f(x):  dx = dy ⊙ f'(x). kernels/functions.h has each f and what its derivative is computed from.
template <class F>
struct FunctionRule {
  static constexpr std::string_view name = F::name;
  F f;
  Saved kept;

  void backward(const Tensor& dy, InputGrads& dx) {
    const Tensor& value = kept.get(name, F::from_y ? "y" : "x");
    with_float_type(name, dy.dtype(), [&]<class T>() {
      kernels::apply_backward<T>(dx.grad<T>(0), dy.view<T>(), value.view<T>(), f);
    });
  }
};

template <class F>
Var apply(const Var& x, const F& f = {}) {
  const OpScope op(F::name);
  Tensor y = Tensor::empty_like(x.value());
  op.with_float_type(y.dtype(), [&]<class T>() { kernels::apply<T>(y.mut<T>(), x.value().view<T>(), f); });
  return record(y, {x}, [&] { return FunctionRule<F>{.f = f, .kept = F::from_y ? Saved(y) : Saved(x)}; });
}

// y = f(a, b):  da = dy ⊙ ∂f/∂a, db = dy ⊙ ∂f/∂b.
template <class F>
struct PairRule {
  static constexpr std::string_view name = F::name;
  Saved a, b;

  void backward(const Tensor& dy, InputGrads& dx) {
    const Tensor &av = a.get(name, "a"), &bv = b.get(name, "b");
    with_float_type(name, dy.dtype(), [&]<class T>() {
      kernels::apply_backward<T>(dx.grad<T>(0), dx.grad<T>(1), dy.view<T>(), av.view<T>(), bv.view<T>(), F{});
    });
  }
};

template <class F>
Var apply(const Var& a, const Var& b) {
  const OpScope op(F::name);
  check_same(op, a, b);
  Tensor y = Tensor::empty_like(a.value());
  op.with_float_type(y.dtype(), [&]<class T>() {
    kernels::apply<T>(y.mut<T>(), a.value().view<T>(), b.value().view<T>(), F{});
  });
  return record(y, {a, b}, [&] { return PairRule<F>{.a = Saved(a), .b = Saved(b)}; });
}

// y = condition ? a : b:  dy goes to the one that was chosen.
struct WhereRule {
  static constexpr std::string_view name = "where";
  Saved condition;

  void backward(const Tensor& dy, InputGrads& dx) {
    const auto chosen = condition.get(name, "condition").view<std::uint8_t>();
    with_float_type(name, dy.dtype(), [&]<class T>() {
      kernels::where_backward<T>(dx.grad<T>(0), dy.view<T>(), chosen, true);
      kernels::where_backward<T>(dx.grad<T>(1), dy.view<T>(), chosen, false);
    });
  }
};

}  // namespace

Var exp(const Var& x) { return apply<kernels::Exp>(x); }
Var log(const Var& x) { return apply<kernels::Log>(x); }
Var tanh(const Var& x) { return apply<kernels::Tanh>(x); }
Var sigmoid(const Var& x) { return apply<kernels::Sigmoid>(x); }
Var abs(const Var& x) { return apply<kernels::Abs>(x); }
Var sqrt(const Var& x) { return apply<kernels::Sqrt>(x); }
Var pow(const Var& x, double p) { return apply(x, kernels::Pow{p}); }
Var quotient(double s, const Var& x) { return apply(x, kernels::Quotient{s}); }

Var clamp(const Var& x, double low, double high) {
  check(low <= high, "clamp: low is {}, high is {}", low, high);
  return apply(x, kernels::Clamp{low, high});
}

Var div(const Var& a, const Var& b) { return apply<kernels::Div>(a, b); }
Var maximum(const Var& a, const Var& b) { return apply<kernels::Maximum>(a, b); }
Var minimum(const Var& a, const Var& b) { return apply<kernels::Minimum>(a, b); }

Var where(const Tensor& condition, const Var& a, const Var& b) {
  const OpScope op(WhereRule::name);
  check_same(op, a, b);
  op.check(condition.shape() == a.shape() && condition.dtype() == Dtype::u8,
           "condition is {} {}, a and b are {}; it has to be u8 of their shape", condition.shape(),
           condition.dtype(), a.shape());
  Tensor y = Tensor::empty_like(a.value());
  op.with_float_type(y.dtype(), [&]<class T>() {
    kernels::where<T>(y.mut<T>(), condition.view<std::uint8_t>(), a.value().view<T>(), b.value().view<T>());
  });
  return record(y, {a, b}, [&] { return WhereRule{.condition = Saved(condition)}; });
}

}  // namespace tilegrad
