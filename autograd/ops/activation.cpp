#include "kernels/activation.h"

#include "autograd/ops.h"
#include "autograd/ops/checks.h"
#include "autograd/profile.h"
#include "autograd/saved.h"
#include "autograd/tape.h"

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
      const auto [dgate, write_gate] = wanted_slot<T>(dx, 0);
      const auto [dup, write_up] = wanted_slot<T>(dx, 1);
      kernels::swiglu_backward<T>(dgate, write_gate, dup, write_up, dy.view<T>(), gate_value.view<T>(),
                                  up_value.view<T>());
    });
  }

  template <class T>
  static std::pair<std::span<T>, Write> wanted_slot(InputGrads& dx, int i) {
    if (!dx.wanted(i)) return {std::span<T>(), Write::overwrite};
    const InputGrads::Slot slot = dx.slot(i);
    return {slot.grad->mut<T>(), slot.write};
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
