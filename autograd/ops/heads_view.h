#pragma once

#include "tilegrad/autograd/tensor.h"
#include "tilegrad/kernels/heads.h"

namespace tilegrad {

/// A (B, T, H, D) tensor as the kernels see it.
template <class T>
kernels::Heads<const T> heads_view(const Tensor& x) {
  return {x.view<T>().data(), x.dim(0), x.dim(1), x.dim(2), x.dim(3)};
}
template <class T>
kernels::Heads<T> mut_heads_view(Tensor& x) {
  return {x.mut<T>().data(), x.dim(0), x.dim(1), x.dim(2), x.dim(3)};
}

}  // namespace tilegrad
