#include "tilegrad/kernels/activation.h"

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/ops/checks.h"
#include "tilegrad/autograd/ops/wanted.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad {

namespace {

// The three activations of one argument differ in their kernels and their names alone. y = f(x): dx = dy ⊙
// f'(x).
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
    const InputGrads::Slot slot = dx.slot(0);
    with_float_type(name, dy.dtype(), [&]<class T>() {
      Activation::template backward<T>(slot.grad->mut<T>(), slot.write, dy.view<T>(), xv.view<T>());
    });
  }
};

template <class Activation>
Var activate(const Var& x) {
  const OpScope scope(Activation::name);
  Tensor y = Tensor::empty_like(x.value());
  with_float_type(Activation::name, y.dtype(),
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
      std::span<T> dgate, dup;
      Write write_gate = Write::overwrite, write_up = Write::overwrite;
      take_wanted(dx, 0, dgate, write_gate);
      take_wanted(dx, 1, dup, write_up);
      kernels::swiglu_backward<T>(dgate, write_gate, dup, write_up, dy.view<T>(), gate_value.view<T>(),
                                  up_value.view<T>());
    });
  }
};

}  // namespace

Var relu(const Var& x) { return activate<Relu>(x); }
Var gelu(const Var& x) { return activate<Gelu>(x); }
Var silu(const Var& x) { return activate<Silu>(x); }

Var swiglu(const Var& gate, const Var& up) {
  const OpScope scope(SwigluRule::name);
  check_same("swiglu", gate, up);
  Tensor y = Tensor::empty_like(gate.value());
  with_float_type("swiglu", y.dtype(), [&]<class T>() {
    kernels::swiglu<T>(y.mut<T>(), gate.value().view<T>(), up.value().view<T>());
  });
  return record(y, {gate, up}, [&] { return SwigluRule{.gate = Saved(gate), .up = Saved(up)}; });
}

}  // namespace tilegrad
