#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/kernels/elementwise.h"

namespace tilegrad {

namespace {

// y = s Σ x:  dx = s dy for every element. s is 1 for sum and 1/size for mean.
struct SumRule {
  static constexpr std::string_view name = "sum";
  double s;

  void backward(const Tensor& dy, InputGrads& dx) {
    with_float_type(name, dy.dtype(), [&]<class T>() {
      kernels::sum_backward<T>(dx.grad<T>(0), static_cast<T>(s * dy.item()));
    });
  }
};

Var scaled_sum(const OpScope& op, const Var& x, double s) {
  Tensor y = Tensor::empty({}, x.dtype());
  op.with_float_type(y.dtype(), [&]<class T>() {
    y.mut<T>()[0] = static_cast<T>(s * static_cast<double>(kernels::sum<T>(x.value().view<T>())));
  });
  return record(y, {x}, [&] { return SumRule{s}; });
}

}  // namespace

Var sum(const Var& x) { return scaled_sum(OpScope(SumRule::name), x, 1.0); }

Var mean(const Var& x) {
  const OpScope op(SumRule::name);
  check(x.value().size() > 0, "mean: {} has no elements", x.shape());
  return scaled_sum(op, x, 1.0 / static_cast<double>(x.value().size()));
}

}  // namespace tilegrad
