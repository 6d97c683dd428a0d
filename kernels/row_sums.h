#pragma once

#include <algorithm>
#include <iterator>
#include <span>

#include "tilegrad/base/index.h"
#include "tilegrad/base/memory.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/kernels/views.h"

namespace tilegrad::kernels {

/// Sums of many rows, column by column. Rows are added in T in blocks of 128, and the blocks in double: so
/// the error is that of about a hundred additions in T, however many rows there are. The caller owns the
/// memory, n numbers each.
template <class T>
class RowSums {
 public:
  RowSums(T* block, double* totals, Index n) : block_(block), totals_(totals), n_(n) {
    std::fill_n(block_, n_, T{0});
    std::fill_n(totals_, n_, 0.0);
  }

  /// Where to add the next row.
  T* next() {
    if (rows_ == kRows) flush();
    ++rows_;
    return block_;
  }

  /// Makes `totals` complete.
  void finish() { flush(); }

 private:
  static constexpr Index kRows = 128;

  void flush() {
    for (Index j = 0; j < n_; ++j) {
      totals_[j] += static_cast<double>(block_[j]);
      block_[j] = T{0};
    }
    rows_ = 0;
  }

  T* block_;
  double* totals_;
  Index n_;
  Index rows_ = 0;  // in the block
};

/// Rows of a matrix in one piece of work: at least as much as is worth waking a thread, and few enough pieces that sums over
/// rows, one for each piece, stay small. Depends on the shape alone.
inline Index rows_per_piece(Index rows, Index cols) {
  constexpr Index kGrain = 16384, kMostPieces = 16;
  return std::max({Index{1}, kGrain / std::max<Index>(1, cols), (rows + kMostPieces - 1) / kMostPieces});
}

/// Calls row(i, sums) for every row of (rows, cols), which adds a vector of the size of `sum` to `sums`: each piece of rows has
/// sums of its own, which are added in order at the end. If `sum` is not needed, sums is null.
template <class T, class F>
void sum_over_rows(Index rows, Index cols, Grad<std::span<T>> sum, F&& row) {
  const Index grain = rows_per_piece(rows, cols), pieces = (rows + grain - 1) / grain;
  const Index size = sum ? std::ssize(sum.to) : 0;
  constexpr auto kBytes = static_cast<Index>(sizeof(double) + sizeof(T));
  const memory::Block scratch(pieces * size * kBytes, memory::Category::workspace);
  double* totals = reinterpret_cast<double*>(scratch.data());
  T* blocks = reinterpret_cast<T*>(totals + pieces * size);
  parallel_for(rows, grain, [&](Index begin, Index end) {
    const Index offset = begin / grain * size;
    RowSums<T> sums(blocks + offset, totals + offset, size);
    for (Index i = begin; i < end; ++i) row(i, sum ? sums.next() : nullptr);
    sums.finish();
  });
  for (Index j = 0; j < size; ++j) {
    double total = 0;
    for (Index piece = 0; piece < pieces; ++piece) total += totals[piece * size + j];
    store(sum.to[j], sum.write, static_cast<T>(total));
  }
}

}  // namespace tilegrad::kernels
