#pragma once

#include <algorithm>

#include "tilegrad/base/index.h"

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

}  // namespace tilegrad::kernels
