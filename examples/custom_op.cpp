// An op of one's own: softplus, y = ln(1 + eˣ). It is recorded, saves what it needs, and its gradient is checked.
#include <cmath>
#include <cstdio>

#include "tilegrad/tilegrad.h"

using namespace tilegrad;

// dx = dy ⊙ σ(x). The tape says whether to overwrite or to add.
struct SoftplusRule {
  static constexpr std::string_view name = "softplus";
  Saved x;

  void backward(const Tensor& dy, InputGrads& dx) {
    const Tensor& saved = x.get(name, "x");
    with_float_type(name, dy.dtype(), [&]<class T>() {
      const auto grad = dx.grad<T>(0);
      const auto dys = dy.view<T>(), xs = saved.view<T>();
      for (std::size_t i = 0; i < xs.size(); ++i) {
        kernels::store(grad.to[i], grad.write, dys[i] / (1 + std::exp(-xs[i])));
      }
    });
  }
};

Var softplus(const Var& x) {
  const OpScope op(SoftplusRule::name);
  Tensor y = Tensor::empty_like(x.value());
  op.with_float_type(y.dtype(), [&]<class T>() {
    const auto xs = x.value().view<T>();
    const auto ys = y.mut<T>();
    for (std::size_t i = 0; i < xs.size(); ++i) ys[i] = std::log1p(std::exp(xs[i]));
  });
  return record(y, {x}, [&] { return SoftplusRule{Saved(x)}; });
}

int main() {
  const auto f = [](std::span<const Var> in) { return softplus(in[0] * in[1]); };
  const auto numbers = [](std::uint64_t seed) { return Tensor::normal({3, 4}, Dtype::f64, RandomKey{seed}); };
  const GradcheckResult result = gradcheck(f, {numbers(1), numbers(2)});
  std::printf("softplus: %d partial derivatives, worst error %.1e\n", static_cast<int>(result.inputs_checked),
              result.worst_error);
  return result.passed ? 0 : 1;
}
