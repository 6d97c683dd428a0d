#pragma once

#include <cassert>
#include <span>
#include <type_traits>

#include "tilegrad/base/index.h"

namespace tilegrad::kernels {

/// A view of a row-major matrix that somebody else owns: element (i, j) is data[i * stride + j]. A head of a
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

/// What a backward kernel does with the gradient that it is handed. The first contribution to a gradient
/// overwrites uninitialised memory, which saves zeroing and reading it; later ones add.
enum class Write { overwrite, accumulate };

/// dst = value or dst += value.
template <class T>
inline void put(T& dst, Write write, T value) {
  dst = write == Write::accumulate ? dst + value : value;
}

}  // namespace tilegrad::kernels
