#include "tilegrad/kernels/gemm/packed.h"

#include <algorithm>

#include "tilegrad/base/memory.h"
#include "tilegrad/kernels/parallel.h"

#ifndef TILEGRAD_KERNELS_GEMM_TABLE  // this file is compiled once for every SIMD target
#define TILEGRAD_KERNELS_GEMM_TABLE
namespace tilegrad::kernels::packed {

// What each SIMD target provides.
struct GemmTable {
  bool is_avx2;
  Index tile_rows, tile_cols;
  // panels: memory of one thread, (inner, block_cols), aligned to 64 bytes.
  void (*multiply)(const Product& p, const Blocking& blocking, float* panels);
};

}  // namespace tilegrad::kernels::packed
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/gemm/packed.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/gemm/tile-inl.h"
#include "tilegrad/kernels/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

using packed::Blocking;
using packed::GemmTable;
using packed::Product;

// c = alpha a b + beta c for a block of a and all packed panels of b.
void multiply_block(Mat<float> c, Mat<const float> a, const float* panels, Update update) {
  const RowTiles tiles(c.rows);
  for (Index col = 0; col < c.cols; col += kPanel<float>, panels += a.cols * kPanel<float>) {
    const Index cols = std::min(kPanel<float>, c.cols - col);
    const auto& functions = cols <= kLanes<float> ? kTileFunctions<LowLanes> : kTileFunctions<AllLanes>;
    for (Index tile = 0; tile < tiles.tiles; ++tile) {
      const Index row = tiles.first(tile);
      const auto multiply_tile = functions[static_cast<std::size_t>(tiles.rows(tile) - 1)];
      multiply_tile(c.row(row) + col, c.stride, cols, a.row(row), a.stride, panels, a.cols, update);
    }
  }
}

// c = alpha a b + beta c for terms [k, k + size) of every sum, and the columns that fit into panels.
void multiply_columns(const Product& p, Index k, Index size, Index block_rows, float* panels) {
  const Update update = {.alpha = p.alpha, .beta = k == 0 ? p.beta : 1};
  p.op_b == Op::none ? pack_columns(panels, p.b.row_block(k, size))
                     : pack_rows(panels, p.b.col_block(k, size));
  for (Index row = 0; row < p.c.rows; row += block_rows) {
    const Index rows = std::min(block_rows, p.c.rows - row);
    multiply_block(p.c.row_block(row, rows), p.a.row_block(row, rows).col_block(k, size), panels, update);
  }
}

void multiply(const Product& p, const Blocking& blocking, float* panels) {
  const Index inner = p.inner(), part = blocking.part(inner);
  for (Index col = 0; col < p.c.cols; col += blocking.block_cols) {
    const Product columns = p.part(0, p.c.rows, col, std::min(blocking.block_cols, p.c.cols - col));
    for (Index k = 0; k < inner; k += part) {
      multiply_columns(columns, k, std::min(part, inner - k), blocking.block_rows, panels);
    }
  }
}

constexpr GemmTable kGemmTable = {.is_avx2 = HWY_TARGET == HWY_AVX2,
                                  .tile_rows = kMicroRows,
                                  .tile_cols = kPanel<float>,
                                  .multiply = multiply};
const GemmTable* gemm_table() { return &kGemmTable; }

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels::packed {

namespace {

HWY_EXPORT(gemm_table);

}  // namespace

bool is_measured_target() { return HWY_DYNAMIC_DISPATCH(gemm_table)()->is_avx2; }

void multiply(const Product& p) {
  const GemmTable& table = *HWY_DYNAMIC_DISPATCH(gemm_table)();
  const Blocking blocking = blocking_for(table.tile_rows, table.tile_cols);
  const Pieces pieces = cut(p, blocking);
  const Index cols = round_up(std::min(pieces.cols, blocking.block_cols), blocking.cols);
  const Index size = round_up(blocking.part(p.inner()) * cols, 16);
  const int team = threads();
  const memory::Block block(team * size * Index{sizeof(float)}, memory::Category::workspace);
  parallel_tasks(
      pieces.tasks(),
      [&](Index task, int thread) {
        const Index row = task / pieces.col_pieces * pieces.rows,
                    col = task % pieces.col_pieces * pieces.cols;
        float* panels = reinterpret_cast<float*>(block.data()) + thread * size;
        const Product part =
            p.part(row, std::min(pieces.rows, p.c.rows - row), col, std::min(pieces.cols, p.c.cols - col));
        table.multiply(part, blocking, panels);
      },
      team);
}

}  // namespace tilegrad::kernels::packed
#endif  // HWY_ONCE
