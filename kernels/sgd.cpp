#include "tilegrad/kernels/sgd.h"

#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

template <class T>
void sgd(std::span<T> w, std::span<T> v, std::span<const T> grad, const SgdStep& step) {
  const auto lr = static_cast<T>(step.lr), momentum = static_cast<T>(step.momentum);
  const auto decay = static_cast<T>(step.weight_decay), grad_scale = static_cast<T>(step.grad_scale);
  constexpr Index kGrain = 16384;
  parallel_for(std::ssize(w), kGrain, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const T g = grad_scale * grad[i] + decay * w[i];
      if (v.empty()) {
        w[i] -= lr * g;
        continue;
      }
      v[i] = momentum * v[i] + g;
      w[i] -= lr * (step.nesterov ? g + momentum * v[i] : v[i]);
    }
  });
}

#define TILEGRAD_INSTANTIATE(T) \
  template void sgd<T>(std::span<T>, std::span<T>, std::span<const T>, const SgdStep&);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels
