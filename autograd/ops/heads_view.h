#pragma once

#include "tilegrad/autograd/tensor.h"
#include "tilegrad/kernels/views.h"

namespace tilegrad {

/// A (B, T, H, D) tensor as the kernels see it.
template <class T>
kernels::HeadsView<const T> view_heads(const Tensor& x) {
  return {x.view<T>().data(), x.dim(0), x.dim(1), x.dim(2), x.dim(3)};
}
template <class T>
kernels::HeadsView<T> mut_view_heads(Tensor& x) {
  return {x.mut<T>().data(), x.dim(0), x.dim(1), x.dim(2), x.dim(3)};
}

}  // namespace tilegrad
