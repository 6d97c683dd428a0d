#pragma once

#include <type_traits>

#include "tilegrad/base/index.h"
#include "tilegrad/kernels/mat.h"

namespace tilegrad::kernels {

/// A (B, T, H, D) tensor that somebody else owns, seen with strides: element (b, t, h, d) is
/// data[b * stride_b + t * stride_t + h * stride_h + d]. The last axis is always contiguous.
template <class T>
struct Heads {
  T* data = nullptr;
  Index batch = 0;
  Index time = 0;
  Index heads = 0;
  Index dim = 0;
  Index stride_b = 0;
  Index stride_t = 0;
  Index stride_h = 0;

  Heads() = default;
  /// A contiguous tensor.
  Heads(T* data_, Index batch_, Index time_, Index heads_, Index dim_)
      : Heads(data_, batch_, time_, heads_, dim_, time_ * heads_ * dim_, heads_ * dim_, dim_) {}
  Heads(T* data_, Index batch_, Index time_, Index heads_, Index dim_, Index stride_b_, Index stride_t_,
        Index stride_h_)
      : data(data_),
        batch(batch_),
        time(time_),
        heads(heads_),
        dim(dim_),
        stride_b(stride_b_),
        stride_t(stride_t_),
        stride_h(stride_h_) {}

  /// One head as a (T, D) matrix.
  Mat<T> head(Index b, Index h) const { return {data + b * stride_b + h * stride_h, time, dim, stride_t}; }

  operator Heads<const T>() const requires(!std::is_const_v<T>) {
    return {data, batch, time, heads, dim, stride_b, stride_t, stride_h};
  }
};

}  // namespace tilegrad::kernels
