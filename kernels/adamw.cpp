#include "tilegrad/kernels/adamw.h"

#include <cmath>

#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

template <class T>
void adamw(std::span<T> w, std::span<T> m, std::span<T> v, std::span<const T> grad, const AdamWStep& step) {
  const auto t = static_cast<double>(step.step);
  // Everything that is the same for all elements is folded into a few constants in double.
  const double root_correction2 = std::sqrt(1 - std::pow(step.beta2, t));
  const auto rate = static_cast<T>(step.lr * root_correction2 / (1 - std::pow(step.beta1, t)));
  const auto eps = static_cast<T>(step.eps * root_correction2);
  const auto keep = static_cast<T>(1 - step.lr * step.weight_decay);
  const auto beta1 = static_cast<T>(step.beta1), beta2 = static_cast<T>(step.beta2);
  const auto rest1 = static_cast<T>(1 - step.beta1), rest2 = static_cast<T>(1 - step.beta2);
  const auto grad_scale = static_cast<T>(step.grad_scale);
  constexpr Index kGrain = 16384;
  parallel_for(std::ssize(w), kGrain,
               [=, w = w.data(), m = m.data(), v = v.data(), grad = grad.data()](Index begin, Index end) {
                 for (Index i = begin; i < end; ++i) {
                   const T g = grad_scale * grad[i];
                   m[i] = beta1 * m[i] + rest1 * g;
                   v[i] = beta2 * v[i] + rest2 * g * g;
                   w[i] = keep * w[i] - rate * m[i] / (std::sqrt(v[i]) + eps);
                 }
               });
}

#define TILEGRAD_INSTANTIATE(T) \
  template void adamw<T>(std::span<T>, std::span<T>, std::span<T>, std::span<const T>, const AdamWStep&);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels
