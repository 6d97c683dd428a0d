#include "tilegrad/kernels/adamw.h"

#include <cmath>

#include "tilegrad/kernels/pieces.h"

namespace tilegrad::kernels {

namespace {

// What is the same for all elements, folded into a few constants in double.
template <class T>
struct Constants {
  T beta1, beta2, rest1, rest2, rate, eps, grad_scale;

  explicit Constants(const AdamWStep& step)
      : beta1(static_cast<T>(step.beta1)),
        beta2(static_cast<T>(step.beta2)),
        rest1(static_cast<T>(1 - step.beta1)),
        rest2(static_cast<T>(1 - step.beta2)),
        grad_scale(static_cast<T>(step.grad_scale)) {
    const auto t = static_cast<double>(step.step);
    const double root_correction2 = std::sqrt(1 - std::pow(step.beta2, t));
    rate = static_cast<T>(step.lr * root_correction2 / (1 - std::pow(step.beta1, t)));
    eps = static_cast<T>(step.eps * root_correction2);
  }
};

template <class T>
void update(const AdamWTensor<T>& tensor, Index begin, Index end, T keep, const Constants<T> c) {
  T *const w = tensor.w.data(), *const m = tensor.m.data(), *const v = tensor.v.data();
  const T* const grad = tensor.grad.data();
  for (Index i = begin; i < end; ++i) {
    const T g = c.grad_scale * grad[i];
    m[i] = c.beta1 * m[i] + c.rest1 * g;
    v[i] = c.beta2 * v[i] + c.rest2 * g * g;
    w[i] = keep * w[i] - c.rate * m[i] / (std::sqrt(v[i]) + c.eps);
  }
}

}  // namespace

template <class T>
void adamw(std::span<const AdamWTensor<T>> tensors, const AdamWStep& step) {
  constexpr Index kGrain = 16384;
  const auto pieces = pieces_of(tensors, kGrain, [](const auto& tensor) { return std::ssize(tensor.w); });
  const Constants<T> constants(step);
  parallel_for(pieces, [&](std::size_t i) {
    const AdamWTensor<T>& tensor = tensors[pieces[i].array];
    const auto keep = static_cast<T>(1 - step.lr * tensor.weight_decay);
    update<T>(tensor, pieces[i].begin, pieces[i].end, keep, constants);
  });
}

#define TILEGRAD_INSTANTIATE(T) template void adamw<T>(std::span<const AdamWTensor<T>>, const AdamWStep&);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels
