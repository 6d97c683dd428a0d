#include "tilegrad/kernels/rope.h"

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad {

namespace {

// y_t = R(t) x_t with R a rotation:  dx_t = R(−t) dy_t. Saves nothing.
struct RopeRule {
  static constexpr std::string_view name = "rope";
  Index first_position;
  double base;

  void backward(const Tensor& dy, InputGrads& dx) {
    with_float_type(name, dy.dtype(), [&]<class T>() {
      kernels::rope_backward<T>(dx.grad_heads<T>(0), dy.heads<T>(), first_position, base);
    });
  }
};

}  // namespace

Var rope(const Var& x, Index first_position, double base) {
  const OpScope op(RopeRule::name);
  op.check(x.rank() == 4, "x is {}, not (B, T, H, D)", x.shape());
  op.check(x.dim(3) % 2 == 0, "head size {} is odd", x.dim(3));
  Tensor y = Tensor::empty_like(x.value());
  op.with_float_type(y.dtype(), [&]<class T>() {
    kernels::rope<T>(y.mut_heads<T>(), x.value().heads<T>(), first_position, base);
  });
  return record(y, {x}, [&] { return RopeRule{.first_position = first_position, .base = base}; });
}

}  // namespace tilegrad
