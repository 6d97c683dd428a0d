#pragma once

#include <cassert>
#include <span>
#include <type_traits>

#include "tilegrad/base/index.h"

/// How kernels see tensors: pointers, sizes and strides of memory that somebody else owns.
namespace tilegrad::kernels {

/// A row-major matrix: element (i, j) is data[i * stride + j]. A head of a
/// (B, T, H, D) tensor is such a view with stride H * D, which is why heads are never copied.
template <class T>
struct Mat {
  T* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  Index stride = 0;

  Mat() = default;
  Mat(T* data_, Index rows_, Index cols_) : Mat(data_, rows_, cols_, cols_) {}
  Mat(T* data_, Index rows_, Index cols_, Index stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}

  T* row(Index i) const { return data + i * stride; }
  std::span<T> row_span(Index i) const { return {row(i), static_cast<std::size_t>(cols)}; }
  T& operator()(Index i, Index j) const { return data[i * stride + j]; }

  /// The `n` rows from `first` on.
  Mat row_block(Index first, Index n) const {
    assert(first >= 0 && n >= 0 && first + n <= rows);
    return {row(first), n, cols, stride};
  }
  /// The `n` columns from `first` on.
  Mat col_block(Index first, Index n) const {
    assert(first >= 0 && n >= 0 && first + n <= cols);
    return {data + first, rows, n, stride};
  }

  operator Mat<const T>() const requires(!std::is_const_v<T>) { return {data, rows, cols, stride}; }
};

/// A (B, T, H, D) tensor: element (b, t, h, d) is
/// data[b * stride_b + t * stride_t + h * stride_h + d]. The last axis is always contiguous.
template <class T>
struct HeadsView {
  T* data = nullptr;
  Index batch = 0;
  Index time = 0;
  Index heads = 0;
  Index dim = 0;
  Index stride_b = 0;
  Index stride_t = 0;
  Index stride_h = 0;

  HeadsView() = default;
  /// A contiguous tensor.
  HeadsView(T* data_, Index batch_, Index time_, Index heads_, Index dim_)
      : HeadsView(data_, batch_, time_, heads_, dim_, time_ * heads_ * dim_, heads_ * dim_, dim_) {}
  HeadsView(T* data_, Index batch_, Index time_, Index heads_, Index dim_, Index stride_b_, Index stride_t_,
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
  Mat<T> head(Index b, Index h) const {
    const bool empty = time == 0 || dim == 0;  // whose data may be null, with strides that are not 0
    return {empty ? data : data + b * stride_b + h * stride_h, time, dim, stride_t};
  }

  operator HeadsView<const T>() const requires(!std::is_const_v<T>) {
    return {data, batch, time, heads, dim, stride_b, stride_t, stride_h};
  }
};

/// A number for each pair of query and key, (B or 1, Hq or 1, Tq, Tk). An axis of size 1 is broadcast and has
/// stride 0. The last axis is contiguous.
template <class T>
struct ScoreView {
  T* data = nullptr;
  Index stride_b = 0;
  Index stride_h = 0;
  Index stride_q = 0;

  explicit operator bool() const { return data != nullptr; }
  T* row(Index b, Index h, Index i) const { return data + b * stride_b + h * stride_h + i * stride_q; }

  operator ScoreView<const T>() const requires(!std::is_const_v<T>) {
    return {data, stride_b, stride_h, stride_q};
  }
};

/// What a backward kernel does with the gradient that it is handed. The first contribution to a gradient
/// overwrites uninitialised memory, which saves zeroing and reading it; later ones add.
enum class Write { overwrite, accumulate };

/// dst = value or dst += value.
template <class T>
inline void store(T& dst, Write write, T value) {
  dst = write == Write::accumulate ? dst + value : value;
}

/// Where a backward kernel writes one gradient, and how. An empty one, without memory, is not needed and not
/// computed.
template <class View>
struct Grad {
  View to = {};
  Write write = Write::overwrite;

  explicit operator bool() const {
    if constexpr (requires { to.size(); }) {
      return to.data() != nullptr;
    } else {
      return to.data != nullptr;
    }
  }
};

}  // namespace tilegrad::kernels
