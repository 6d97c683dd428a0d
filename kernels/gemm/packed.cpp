#include "tilegrad/kernels/gemm/packed.h"

#include <algorithm>

#include "tilegrad/base/memory.h"
#include "tilegrad/kernels/parallel.h"

#ifndef TILEGRAD_KERNELS_GEMM_TABLE  // this file is compiled once for every SIMD target
#define TILEGRAD_KERNELS_GEMM_TABLE
namespace tilegrad::kernels::packed {

// Memory of one thread, aligned to 64 bytes.
struct Scratch {
  float* left;   // (block_rows, inner), if a is transposed
  float* right;  // (inner, block_cols)
};

// What each SIMD target provides.
struct GemmTable {
  Index tile_rows, tile_cols;
  void (*multiply)(const Product& p, const Blocking& blocking, const Scratch& scratch);
};

}  // namespace tilegrad::kernels::packed
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/gemm/packed.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/gemm/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

using packed::Blocking;
using packed::GemmTable;
using packed::Product;
using packed::Scratch;

// c = alpha a b + beta c for a block of a, which lies in tiles, and all packed panels of b.
template <class Left>
void multiply_block(Mat<float> c, Left a, const RowTiles& tiles, const float* panels, Index inner,
                    Update update) {
  for (Index col = 0; col < c.cols; col += kTileCols, panels += inner * kTileCols) {
    const Index cols = std::min(kTileCols, c.cols - col);
    const auto& functions = cols <= kLanes ? kTileFunctions<Left, 1> : kTileFunctions<Left, 2>;
    for (Index tile = 0; tile < tiles.tiles; ++tile) {
      const Index row = tiles.first(tile);
      const auto multiply_tile = functions[static_cast<std::size_t>(tiles.rows(tile) - 1)];
      multiply_tile(c.row(row) + col, c.stride, cols, a.of_tile(tile, row), panels, inner, update);
    }
  }
}

Mat<const float> inner_part(Mat<const float> x, bool along_rows, Index begin, Index size) {
  return along_rows ? x.row_block(begin, size) : x.col_block(begin, size);
}

// c = alpha a b + beta c for terms [k, k + size) of every sum, and the columns that fit into scratch.right.
void multiply_columns(const Product& p, Index k, Index size, Index block_rows, const Scratch& scratch) {
  const Update update = {.alpha = p.alpha, .beta = k == 0 ? p.beta : 1};
  const Mat<const float> b = inner_part(p.b, p.op_b == Op::none, k, size);
  p.op_b == Op::none ? pack_right(scratch.right, b) : pack_right_transposed(scratch.right, b);
  for (Index row = 0; row < p.c.rows; row += block_rows) {
    const Index rows = std::min(block_rows, p.c.rows - row);
    const Product block = p.part(row, rows, 0, p.c.cols);
    const RowTiles tiles(rows);
    const Mat<const float> a = inner_part(block.a, p.op_a == Op::transpose, k, size);
    if (p.op_a == Op::none) {
      multiply_block(block.c, InPlace{a.data, a.stride}, tiles, scratch.right, size, update);
    } else {
      pack_left_transposed(scratch.left, a, tiles);
      multiply_block(block.c, InPanel{scratch.left, size * kTileRows}, tiles, scratch.right, size, update);
    }
  }
}

void multiply(const Product& p, const Blocking& blocking, const Scratch& scratch) {
  const Index inner = p.inner(), part = blocking.part(inner);
  for (Index col = 0; col < p.c.cols; col += blocking.block_cols) {
    const Product columns = p.part(0, p.c.rows, col, std::min(blocking.block_cols, p.c.cols - col));
    for (Index k = 0; k < inner; k += part) {
      multiply_columns(columns, k, std::min(part, inner - k), blocking.block_rows, scratch);
    }
  }
}

constexpr GemmTable kGemmTable = {.tile_rows = kTileRows, .tile_cols = kTileCols, .multiply = multiply};
const GemmTable* gemm_table() { return &kGemmTable; }

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels::packed {

namespace {

HWY_EXPORT(gemm_table);

}  // namespace

void multiply(const Product& p) {
  const GemmTable& table = *HWY_DYNAMIC_DISPATCH(gemm_table)();
  const Blocking blocking = blocking_for(table.tile_rows, table.tile_cols);
  const Pieces pieces = cut(p, blocking);
  const Index part_size = blocking.part(p.inner());
  const Index left_rows = round_up(std::min(pieces.rows, blocking.block_rows), blocking.rows);
  const Index left = p.op_a == Op::none ? 0 : round_up(left_rows * part_size, 16);
  const Index cols = round_up(std::min(pieces.cols, blocking.block_cols), blocking.cols);
  const Index right = round_up(part_size * cols, 16);
  const int team = threads();
  const memory::Block block(team * (left + right) * Index{sizeof(float)}, memory::Category::workspace);
  parallel_tasks(
      pieces.tasks(),
      [&](Index task, int thread) {
        const Index row = task / pieces.col_pieces * pieces.rows,
                    col = task % pieces.col_pieces * pieces.cols;
        float* memory = reinterpret_cast<float*>(block.data()) + thread * (left + right);
        const Product part =
            p.part(row, std::min(pieces.rows, p.c.rows - row), col, std::min(pieces.cols, p.c.cols - col));
        table.multiply(part, blocking, {.left = memory, .right = memory + left});
      },
      team);
}

}  // namespace tilegrad::kernels::packed
#endif  // HWY_ONCE
