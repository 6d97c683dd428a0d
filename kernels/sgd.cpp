#include "tilegrad/kernels/sgd.h"

#include "tilegrad/kernels/pieces.h"

namespace tilegrad::kernels {

namespace {

template <class T>
void update(const SgdTensor<T>& tensor, Index begin, Index end, const SgdStep& step) {
  const auto lr = static_cast<T>(step.lr), momentum = static_cast<T>(step.momentum);
  const auto decay = static_cast<T>(tensor.weight_decay), grad_scale = static_cast<T>(step.grad_scale);
  const std::span<T> w = tensor.w, v = tensor.v;
  const std::span<const T> grad = tensor.grad;
  for (Index i = begin; i < end; ++i) {
    const T g = grad_scale * grad[i] + decay * w[i];
    if (v.empty()) {
      w[i] -= lr * g;
      continue;
    }
    v[i] = momentum * v[i] + g;
    w[i] -= lr * (step.nesterov ? g + momentum * v[i] : v[i]);
  }
}

}  // namespace

template <class T>
void sgd(std::span<const SgdTensor<T>> tensors, const SgdStep& step) {
  constexpr Index kGrain = 16384;
  const auto pieces = pieces_of(tensors, kGrain, [](const auto& tensor) { return std::ssize(tensor.w); });
  parallel_for(pieces, [&](std::size_t i) {
    update<T>(tensors[pieces[i].array], pieces[i].begin, pieces[i].end, step);
  });
}

#define TILEGRAD_INSTANTIATE(T) template void sgd<T>(std::span<const SgdTensor<T>>, const SgdStep&);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels
