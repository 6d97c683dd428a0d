#include "tilegrad/kernels/norm.h"

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/ops/checks.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad {

namespace {

// y = n ⊙ weight + bias, n = (x − mean) rstd. kernels/norm.h has the gradients.
struct LayerNormRule {
  static constexpr std::string_view name = "layernorm";
  Saved x, weight, mean, rstd;

  void backward(const Tensor& dy, InputGrads& dx) {
    with_float_type(name, dy.dtype(), [&]<class T>() {
      const kernels::LayerNormGrads<T> grads = {
          .dx = dx.grad_mat<T>(0), .dweight = dx.grad<T>(1), .dbias = dx.grad<T>(2)};
      kernels::layernorm_backward<T>(grads, dy.mat<T>(), x.get(name, "x").mat<T>(),
                                     weight.get(name, "weight").view<T>(), mean.get(name, "mean").view<T>(),
                                     rstd.get(name, "rstd").view<T>());
    });
  }
};

// y = n ⊙ weight, n = x rstd.
struct RmsNormRule {
  static constexpr std::string_view name = "rmsnorm";
  Saved x, weight, rstd;

  void backward(const Tensor& dy, InputGrads& dx) {
    with_float_type(name, dy.dtype(), [&]<class T>() {
      const kernels::RmsNormGrads<T> grads = {.dx = dx.grad_mat<T>(0), .dweight = dx.grad<T>(1)};
      kernels::rmsnorm_backward<T>(grads, dy.mat<T>(), x.get(name, "x").mat<T>(),
                                   weight.get(name, "weight").view<T>(), rstd.get(name, "rstd").view<T>());
    });
  }
};

}  // namespace

Var layernorm(const Var& x, const Var& weight, const Var& bias, double eps) {
  const OpScope op(LayerNormRule::name);
  check_along_last(op, "weight", x, weight);
  check_along_last(op, "bias", x, bias);
  Tensor y = Tensor::empty_like(x.value());
  Tensor mean = Tensor::empty({y.rows()}, y.dtype());
  Tensor rstd = Tensor::empty({y.rows()}, y.dtype());
  op.with_float_type(y.dtype(), [&]<class T>() {
    kernels::layernorm<T>(y.mut_mat<T>(), mean.mut<T>(), rstd.mut<T>(), x.value().mat<T>(),
                          weight.value().view<T>(), bias.value().view<T>(), eps);
  });
  return record(y, {x, weight, bias}, [&] {
    return LayerNormRule{.x = Saved(x), .weight = Saved(weight), .mean = Saved(mean), .rstd = Saved(rstd)};
  });
}

Var rmsnorm(const Var& x, const Var& weight, double eps) {
  const OpScope op(RmsNormRule::name);
  check_along_last(op, "weight", x, weight);
  Tensor y = Tensor::empty_like(x.value());
  Tensor rstd = Tensor::empty({y.rows()}, y.dtype());
  op.with_float_type(y.dtype(), [&]<class T>() {
    kernels::rmsnorm<T>(y.mut_mat<T>(), rstd.mut<T>(), x.value().mat<T>(), weight.value().view<T>(), eps);
  });
  return record(y, {x, weight},
                [&] { return RmsNormRule{.x = Saved(x), .weight = Saved(weight), .rstd = Saved(rstd)}; });
}

}  // namespace tilegrad
