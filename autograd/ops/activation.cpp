#include "tilegrad/kernels/activation.h"

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/ops/checks.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad {

namespace {

// The three activations of one argument differ only in their kernels and names. y = f(x):  dx = dy ⊙ f'(x).
struct Relu {
  static constexpr std::string_view name = "relu";
  template <class T>
  static constexpr auto forward = kernels::relu<T>;
  template <class T>
  static constexpr auto backward = kernels::relu_backward<T>;
};
struct Gelu {
  static constexpr std::string_view name = "gelu";
  template <class T>
  static constexpr auto forward = kernels::gelu<T>;
  template <class T>
  static constexpr auto backward = kernels::gelu_backward<T>;
};
struct Silu {
  static constexpr std::string_view name = "silu";
  template <class T>
  static constexpr auto forward = kernels::silu<T>;
  template <class T>
  static constexpr auto backward = kernels::silu_backward<T>;
};

template <class Activation>
struct ActivationRule {
  static constexpr std::string_view name = Activation::name;
  Saved x;

  void backward(const Tensor& dy, InputGrads& dx) {
    const Tensor& xv = x.get(name, "x");
    with_float_type(name, dy.dtype(), [&]<class T>() {
      Activation::template backward<T>(dx.grad<T>(0), dy.view<T>(), xv.view<T>());
    });
  }
};

template <class Activation>
Var activate(const Var& x) {
  const OpScope op(Activation::name);
  Tensor y = Tensor::empty_like(x.value());
  op.with_float_type(y.dtype(),
                     [&]<class T>() { Activation::template forward<T>(y.mut<T>(), x.value().view<T>()); });
  return record(y, {x}, [&] { return ActivationRule<Activation>{.x = Saved(x)}; });
}

// y = silu(gate) ⊙ up:  dgate = dy ⊙ up ⊙ silu'(gate), dup = dy ⊙ silu(gate).
struct SwigluRule {
  static constexpr std::string_view name = "swiglu";
  Saved gate, up;

  void backward(const Tensor& dy, InputGrads& dx) {
    const Tensor& gate_value = gate.get(name, "gate");
    const Tensor& up_value = up.get(name, "up");
    with_float_type(name, dy.dtype(), [&]<class T>() {
      kernels::swiglu_backward<T>(dx.grad<T>(0), dx.grad<T>(1), dy.view<T>(), gate_value.view<T>(),
                                  up_value.view<T>());
    });
  }
};

}  // namespace

Var relu(const Var& x) { return activate<Relu>(x); }
Var gelu(const Var& x) { return activate<Gelu>(x); }
Var silu(const Var& x) { return activate<Silu>(x); }

Var swiglu(const Var& gate, const Var& up) {
  const OpScope op(SwigluRule::name);
  check_same(op, gate, up);
  Tensor y = Tensor::empty_like(gate.value());
  op.with_float_type(y.dtype(), [&]<class T>() {
    kernels::swiglu<T>(y.mut<T>(), gate.value().view<T>(), up.value().view<T>());
  });
  return record(y, {gate, up}, [&] { return SwigluRule{.gate = Saved(gate), .up = Saved(up)}; });
}

}  // namespace tilegrad
