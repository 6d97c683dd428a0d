#include "tilegrad/kernels/gemm/packed.h"

#include <algorithm>
#include <atomic>

#include "tilegrad/base/memory.h"
#include "tilegrad/kernels/parallel.h"

#ifndef TILEGRAD_KERNELS_GEMM_TABLE  // this file is compiled once for every SIMD target
#define TILEGRAD_KERNELS_GEMM_TABLE
namespace tilegrad::kernels::packed {

// What each SIMD target provides.
struct GemmTable {
  Target target;
  Index tile_rows, tile_cols;
  // Packs b, of which all terms are one part of the sums.
  void (*pack)(const Product& p, float* panels);
  // The product with a packed b. `slivers` is memory for a block of a, if that is to be packed.
  void (*multiply)(const Product& p, const float* panels, Index block_rows, float* slivers);
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

using packed::GemmTable;
using packed::Product;

// c = alpha a b + beta c for a block of a and all packed panels of b.
template <class A>
void multiply_block(Mat<float> c, const A& a, const float* panels, Update update) {
  using Tile = decltype(a.tile(0));
  for (Index col = 0; col < c.cols; col += kPanel<float>, panels += a.inner() * kPanel<float>) {
    const Index cols = std::min(kPanel<float>, c.cols - col);
    const auto& functions =
        cols <= kLanes<float> ? kTileFunctions<LowLanes, Tile> : kTileFunctions<AllLanes, Tile>;
    for (Index i = 0; i < a.tiles.tiles; ++i) {
      const auto multiply_tile = functions[static_cast<std::size_t>(a.tiles.rows(i) - 1)];
      multiply_tile(c.row(a.tiles.first(i)) + col, c.stride, cols, a.tile(i), panels, a.inner(),
                    update.from_column(col));
    }
  }
}

void pack(const Product& p, float* panels) {
  p.op_b == Op::none ? pack_columns(panels, p.b) : pack_rows(panels, p.b);
}

void multiply(const Product& p, const float* panels, Index block_rows, float* slivers) {
  const Update update = {.alpha = p.alpha, .beta = p.beta, .bias = p.bias};
  for (Index row = 0; row < p.c.rows; row += block_rows) {
    const Product block = p.part(row, std::min(block_rows, p.c.rows - row), 0, p.c.cols);
    packs_a(p) ? multiply_block(block.c, pack_slivers(slivers, block.a), panels, update)
               : multiply_block(block.c, RowsInPlace(block.a), panels, update);
  }
}

constexpr GemmTable kGemmTable = {.target = HWY_TARGET == HWY_AVX2   ? packed::Target::avx2
                                            : HWY_TARGET == HWY_AVX3 ? packed::Target::avx512
                                                                     : packed::Target::other,
                                  .tile_rows = kMicroRows,
                                  .tile_cols = kPanel<float>,
                                  .pack = pack,
                                  .multiply = multiply};
const GemmTable* gemm_table() { return &kGemmTable; }

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels::packed {

namespace {

HWY_EXPORT(gemm_table);

// The part of a product that one block of b has a share in, cut into tasks. If the rows of c are cut, several tasks read
// the same b, and all of it is packed before they begin. Otherwise each packs what it reads, and multiplies at once, while
// that is in its cache.
struct BlockWork {
  const GemmTable& table;
  const Blocking& blocking;
  const Product& p;
  const Index part;  // terms in a part of the sums, but for the last
  float* panels;     // of the first part, then of the second ...
  const Pieces pieces = cut(p, blocking);

  bool shares_b() const { return pieces.row_pieces > 1; }
  Index terms(Index k) const { return std::min(part, p.inner() - k); }
  float* panels_of(Index k, Index col) const {
    return panels + (shares_b() ? k * round_up(p.c.cols, blocking.cols) : 0) + terms(k) * col;
  }

  // Columns [col, col + cols) of b, for the part of the sums from k on.
  void pack(Index k, Index col, Index cols) const {
    table.pack(p.terms(k, terms(k)).part(0, 0, col, cols), panels_of(k, col));
  }

  void multiply(Index piece, float* slivers) const {
    const Index row = piece / pieces.col_pieces * pieces.rows, rows = std::min(pieces.rows, p.c.rows - row);
    const Index col = piece % pieces.col_pieces * pieces.cols, cols = std::min(pieces.cols, p.c.cols - col);
    for (Index k = 0; k < p.inner(); k += part) {
      if (!shares_b()) pack(k, col, cols);
      table.multiply(p.terms(k, terms(k)).part(row, rows, col, cols), panels_of(k, col), blocking.block_rows,
                     slivers);
    }
  }
};

// Runs all tasks of a block. The first ones pack b, a part of the sums and some columns each; the others wait until all of
// it is packed. There is no deadlock, since tasks are handed out in order.
void run(const BlockWork& work, float* slivers, Index slivers_size, int team) {
  constexpr Index kPanels = 8;
  const Index cols = kPanels * work.blocking.cols, col_packs = ceil_div(work.p.c.cols, cols);
  const Index packs = work.shares_b() ? ceil_div(work.p.inner(), work.part) * col_packs : 0;
  std::atomic<Index> packed = 0;
  parallel_tasks(
      packs + work.pieces.tasks(),
      [&](Index task, int thread) {
        if (task < packs) {
          const Index k = task / col_packs * work.part, col = task % col_packs * cols;
          work.pack(k, col, std::min(cols, work.p.c.cols - col));
          packed.fetch_add(1, std::memory_order_release);
          return;
        }
        spin_until([&] { return packed.load(std::memory_order_acquire) == packs; });
        work.multiply(task - packs, slivers + thread * slivers_size);
      },
      team);
}

}  // namespace

Target target() { return HWY_DYNAMIC_DISPATCH(gemm_table)()->target; }

void multiply(const Product& p) {
  const GemmTable& table = *HWY_DYNAMIC_DISPATCH(gemm_table)();
  const Blocking blocking = blocking_for(table.tile_rows, table.tile_cols);
  const BlockOfB b = block_of_b(p, blocking);
  const Index part = blocking.part(p.inner());
  const Index panels = round_up(b.terms * b.cols, 16);
  const Index slivers =
      packs_a(p) ? blocking.block_rows / blocking.rows * sliver_stride(part, blocking.rows) : 0;
  const int team = threads();
  const memory::Block block((panels + team * slivers) * Index{sizeof(float)}, memory::Category::workspace);
  float* scratch = reinterpret_cast<float*>(block.data());
  for (Index col = 0; col < p.c.cols; col += b.cols) {
    const Product columns = p.part(0, p.c.rows, col, std::min(b.cols, p.c.cols - col));
    for (Index k = 0; k < p.inner(); k += b.terms) {
      const Product terms = columns.terms(k, std::min(b.terms, p.inner() - k));
      run({.table = table, .blocking = blocking, .p = terms, .part = part, .panels = scratch},
          scratch + panels, slivers, team);
    }
  }
}

}  // namespace tilegrad::kernels::packed
#endif  // HWY_ONCE
