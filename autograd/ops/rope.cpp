#include "tilegrad/kernels/rope.h"

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/ops/heads_view.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad {

namespace {

// y_t = R(t) x_t with R a rotation:  dx_t = R(−t) dy_t. Saves nothing.
struct RopeRule {
  static constexpr std::string_view name = "rope";
  Index first_position;
  double base;

  void backward(const Tensor& dy, InputGrads& dx) {
    const InputGrads::Slot slot = dx.slot(0);
    with_float_type(name, dy.dtype(), [&]<class T>() {
      kernels::rope_backward<T>(mut_view_heads<T>(*slot.grad), slot.write, view_heads<T>(dy), first_position,
                                base);
    });
  }
};

}  // namespace

Var rope(const Var& x, Index first_position, double base) {
  const OpScope scope(RopeRule::name);
  check(x.rank() == 4, "rope: x is {}, not (B, T, H, D)", x.shape());
  check(x.dim(3) % 2 == 0, "rope: head size {} is odd", x.dim(3));
  Tensor y = Tensor::empty_like(x.value());
  with_float_type("rope", y.dtype(), [&]<class T>() {
    kernels::rope<T>(mut_view_heads<T>(y), view_heads<T>(x.value()), first_position, base);
  });
  return record(y, {x}, [&] { return RopeRule{.first_position = first_position, .base = base}; });
}

}  // namespace tilegrad
