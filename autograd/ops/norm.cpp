#include "tilegrad/kernels/norm.h"

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/ops/checks.h"
#include "tilegrad/autograd/ops/wanted.h"
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
      kernels::LayerNormGrads<T> grads;
      take_wanted(dx, 0, grads.dx, grads.write_x);
      take_wanted(dx, 1, grads.dweight, grads.write_weight);
      take_wanted(dx, 2, grads.dbias, grads.write_bias);
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
      kernels::RmsNormGrads<T> grads;
      take_wanted(dx, 0, grads.dx, grads.write_x);
      take_wanted(dx, 1, grads.dweight, grads.write_weight);
      kernels::rmsnorm_backward<T>(grads, dy.mat<T>(), x.get(name, "x").mat<T>(),
                                   weight.get(name, "weight").view<T>(), rstd.get(name, "rstd").view<T>());
    });
  }
};

}  // namespace

Var layernorm(const Var& x, const Var& weight, const Var& bias, double eps) {
  const OpScope scope(LayerNormRule::name);
  check_along_last("layernorm", "weight", x, weight);
  check_along_last("layernorm", "bias", x, bias);
  Tensor y = Tensor::empty_like(x.value());
  Tensor mean = Tensor::empty({y.rows()}, y.dtype());
  Tensor rstd = Tensor::empty({y.rows()}, y.dtype());
  with_float_type("layernorm", y.dtype(), [&]<class T>() {
    kernels::layernorm<T>(y.mut_mat<T>(), mean.mut<T>(), rstd.mut<T>(), x.value().mat<T>(),
                          weight.value().view<T>(), bias.value().view<T>(), eps);
  });
  return record(y, {x, weight, bias}, [&] {
    return LayerNormRule{.x = Saved(x), .weight = Saved(weight), .mean = Saved(mean), .rstd = Saved(rstd)};
  });
}

Var rmsnorm(const Var& x, const Var& weight, double eps) {
  const OpScope scope(RmsNormRule::name);
  check_along_last("rmsnorm", "weight", x, weight);
  Tensor y = Tensor::empty_like(x.value());
  Tensor rstd = Tensor::empty({y.rows()}, y.dtype());
  with_float_type("rmsnorm", y.dtype(), [&]<class T>() {
    kernels::rmsnorm<T>(y.mut_mat<T>(), rstd.mut<T>(), x.value().mat<T>(), weight.value().view<T>(), eps);
  });
  return record(y, {x, weight},
                [&] { return RmsNormRule{.x = Saved(x), .weight = Saved(weight), .rstd = Saved(rstd)}; });
}

}  // namespace tilegrad
