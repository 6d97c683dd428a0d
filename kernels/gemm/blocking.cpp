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
  part.a = op_a == Op::none ? a.row_block(row, rows) : a.col_block(row, rows);
  part.b = op_b == Op::none ? b.col_block(col, cols) : b.row_block(col, cols);
  if (bias != nullptr) part.bias = bias + col;
  return part;
}

Product Product::terms(Index first, Index n) const {
  Product part = *this;
  part.a = op_a == Op::none ? a.col_block(first, n) : a.row_block(first, n);
  part.b = op_b == Op::none ? b.row_block(first, n) : b.col_block(first, n);
  if (first > 0) part.beta = 1;
  if (first + n < inner()) part.bias = nullptr;
  return part;
}

Blocking blocking_for(Index tile_rows, Index tile_cols) {
  constexpr Index kFloat = sizeof(float), kLine = 64;
  const bool is_avx512 = tile_cols * kFloat > kLine;
  const Index panel = is_avx512 ? 3 * kL1 / 2 : kL1 / 2;
  const Index inner = panel / (tile_cols * kFloat);
  const Index block_rows = second_level() / 4 / (inner * kFloat) / tile_rows * tile_rows;
  return {
      .rows = tile_rows, .cols = tile_cols, .inner = inner, .block_rows = std::max(block_rows, tile_rows)};
}

// Many terms rather than many columns: then tasks are few and long.
BlockOfB block_of_b(const Product& p, const Blocking& blocking) {
  constexpr Index kMost = Index{1} << 19, kCols = 512;
  const Index part = blocking.part(p.inner()), cols = round_up(p.c.cols, blocking.cols);
  const Index parts = std::max<Index>(kMost / (part * std::min(cols, kCols)), 1);
  const Index terms = std::min(parts * part, p.inner());
  const Index blocks = ceil_div(p.c.cols * terms, kMost);  // of nearly one width
  return {.terms = terms, .cols = std::min(round_up(ceil_div(cols, blocks), blocking.cols), cols)};
}

// Rows are cut first, since the tasks share b. Every cut between columns makes one more task read, or pack, the same rows
// of a: it is made if there are too few tasks to keep threads of unequal speed busy. No task is short against the time
// to hand it out.
Pieces cut(const Product& p, const Blocking& blocking) {
  constexpr Index kMost = 16, kTaskWork = 1 << 20;  // multiplications in a task, about 20 µs with AVX2
  constexpr Index kLeastRows = 48;                  // of c: a task reads all of its b for them
  const Index enough = packs_a(p) ? 4 : kMost;
  const Index least_cols = 2 * blocking.cols;
  Pieces pieces = {.rows = p.c.rows, .cols = p.c.cols, .row_pieces = 1, .col_pieces = 1};
  while (pieces.tasks() < kMost && pieces.rows * pieces.cols * p.inner() >= 2 * kTaskWork) {
    if (pieces.rows >= 2 * kLeastRows) {
      pieces.rows = round_up(ceil_div(pieces.rows, 2), blocking.rows);
    } else if (pieces.cols >= 2 * least_cols && pieces.tasks() < enough) {
      pieces.cols = round_up(ceil_div(pieces.cols, 2), blocking.cols);
    } else {
      break;
    }
    pieces.row_pieces = ceil_div(p.c.rows, pieces.rows);
    pieces.col_pieces = ceil_div(p.c.cols, pieces.cols);
  }
  return pieces;
}

}  // namespace tilegrad::kernels::packed
