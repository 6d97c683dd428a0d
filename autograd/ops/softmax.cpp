#include "tilegrad/kernels/softmax.h"

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad {

namespace {

// y = softmax(x) over the last axis:  dx = y ⊙ (dy − ⟨y, dy⟩). Needs y alone, never x.
struct SoftmaxRule {
  static constexpr std::string_view name = "softmax";
  Saved y;

  void backward(const Tensor& dy, InputGrads& dx) {
    const Tensor& yv = y.get(name, "y");
    with_float_type(name, dy.dtype(), [&]<class T>() {
      kernels::softmax_backward<T>(dx.grad_mat<T>(0), dy.mat<T>(), yv.mat<T>());
    });
  }
};

}  // namespace

Var softmax(const Var& x) {
  const OpScope op(SoftmaxRule::name);
  op.check(x.rank() >= 1, "x needs at least one axis, it is {}", x.shape());
  Tensor y = Tensor::empty_like(x.value());
  op.with_float_type(y.dtype(), [&]<class T>() { kernels::softmax<T>(y.mut_mat<T>(), x.value().mat<T>()); });
  return record(y, {x}, [&] { return SoftmaxRule{.y = Saved(y)}; });
}

}  // namespace tilegrad
