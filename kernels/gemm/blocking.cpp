#include <unistd.h>

#include <algorithm>

#include "tilegrad/kernels/gemm/packed.h"

namespace tilegrad::kernels::packed {

namespace {

// Of the smallest processors. It is not the machine's, so that sums are cut alike everywhere.
constexpr Index kL1 = Index{32} << 10;

Index second_level() {
  static const Index bytes = [] {
    const long size = sysconf(_SC_LEVEL2_CACHE_SIZE);  // 0 or less where the system does not tell
    return std::clamp<Index>(size > 0 ? Index{size} : Index{512} << 10, Index{128} << 10, Index{2} << 20);
  }();
  return bytes;
}

}  // namespace

Product Product::part(Index row, Index rows, Index col, Index cols) const {
  Product part = *this;
  part.c = c.row_block(row, rows).col_block(col, cols);
  part.a = a.row_block(row, rows);
  part.b = op_b == Op::none ? b.col_block(col, cols) : b.row_block(col, cols);
  return part;
}

Blocking blocking_for(Index tile_rows, Index tile_cols) {
  constexpr Index kFloat = sizeof(float);
  const Index inner = kL1 / 2 / (tile_cols * kFloat);
  const Index block_rows = second_level() / 4 / (inner * kFloat) / tile_rows * tile_rows;
  const Index block_cols = (Index{1} << 20) / (inner * kFloat) / tile_cols * tile_cols;
  return {.rows = tile_rows,
          .cols = tile_cols,
          .inner = inner,
          .block_rows = std::max(block_rows, tile_rows),
          .block_cols = std::max(block_cols, tile_cols)};
}

// Every task packs what it reads, so a cut costs: half as many rows in a task mean that b is packed twice as
// often, half as many columns the same for a. The cheaper cut is taken until there are tasks enough to keep
// threads of unequal speed busy, or a task would become short against the time to hand it out.
Pieces cut(const Product& p, const Blocking& blocking) {
  constexpr Index kEnough = 2, kMost = 16, kTaskWork = 1 << 20;  // multiplications in a task, about 20 µs
  // Cycles to pack an element, and to use it for one element of c, as measured with AVX2. What a tile reads
  // where it lies is loaded again.
  constexpr double kTransposed = .4, kCopied = .2, kRead = .05, kMultiplied = 1.0 / 16;
  constexpr double kCheap = .02;  // of the work: a cut that is worth it even if there are enough tasks
  const Index m = p.c.rows, n = p.c.cols;
  const double pack_b = p.op_b == Op::none ? kCopied : kTransposed;
  const Index least_rows = 8 * blocking.rows, least_cols = 2 * blocking.cols;
  Pieces pieces = {.rows = m, .cols = n, .row_pieces = 1, .col_pieces = 1};
  while (pieces.tasks() < kMost && pieces.rows * pieces.cols * p.inner() >= 2 * kTaskWork) {
    const bool rows_fit = pieces.rows >= 2 * least_rows, cols_fit = pieces.cols >= 2 * least_cols;
    if (!rows_fit && !cols_fit) break;
    const double by_rows = pack_b / kMultiplied / static_cast<double>(pieces.rows);
    const double by_cols = kRead / kMultiplied / static_cast<double>(pieces.cols);
    const bool cut_rows = rows_fit && (!cols_fit || by_rows < by_cols);
    if (pieces.tasks() >= kEnough && (cut_rows ? by_rows : by_cols) > kCheap) break;
    Index& size = cut_rows ? pieces.rows : pieces.cols;
    size = round_up(ceil_div(size, 2), cut_rows ? blocking.rows : blocking.cols);
    pieces.row_pieces = ceil_div(m, pieces.rows);
    pieces.col_pieces = ceil_div(n, pieces.cols);
  }
  return pieces;
}

}  // namespace tilegrad::kernels::packed
