// The innermost product: a tile of c, summed up in registers. For one SIMD target.
#if defined(TILEGRAD_KERNELS_GEMM_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_GEMM_TILE_INL_H_
#undef TILEGRAD_KERNELS_GEMM_TILE_INL_H_
#else
#define TILEGRAD_KERNELS_GEMM_TILE_INL_H_
#endif

#include <hwy/cache_control.h>

#include <algorithm>
#include <array>
#include <utility>

#include "tilegrad/kernels/gemm/packed.h"
#include "tilegrad/kernels/panels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

// c = alpha x + beta c for two vectors or one. With beta = 0 c is not read.
struct Update {
  float alpha, beta;

  HWY_INLINE Vec<float> operator()(Vec<float> x, const float* c) const {
    const Tag<float> d;
    const auto factor = hn::Set(d, alpha);
    if (beta == 0) return hn::Mul(factor, x);
    const auto old = hn::LoadU(d, c);
    return hn::MulAdd(factor, x, beta == 1 ? old : hn::Mul(hn::Set(d, beta), old));
  }
};

// A tile of `Rows` rows: c (Rows, cols) = alpha a b + beta c, for rows of a where they lie, and a panel b
// (inner, panel), of which the columns of `Half` are needed.
template <Index Rows, class Half>
HWY_NOINLINE HWY_ATTR void multiply_tile(float* c, Index stride, Index cols, const float* a, Index a_stride,
                                         const float* HWY_RESTRICT b, Index inner, Update update) {
  const Tag<float> d;
  Accumulators<float, Rows> sum;
  sum.clear();
  for (Index m = 0; m < Rows; ++m) hwy::Prefetch(c + m * stride);
  sum.template add_product<Half>(RowMajor<float>{a, a_stride}, b, inner);
  const auto store = [&](Index m, const float* old, float* to) HWY_ATTR {
    hn::StoreU(update(sum.v[m][0], old), d, to);
    hn::StoreU(update(sum.v[m][1], old + kLanes<float>), d, to + kLanes<float>);
  };
  if (cols == kPanel<float>) {
    HWY_UNROLL(16)
    for (Index m = 0; m < Rows; ++m) store(m, c + m * stride, c + m * stride);
    return;
  }
  // The last columns: through a row of our own, since memory may end within a vector.
  HWY_UNROLL(16)
  for (Index m = 0; m < Rows; ++m) {
    HWY_ALIGN float row[kPanel<float>] = {};
    float* to = c + m * stride;
    if (update.beta != 0) std::copy_n(to, cols, row);
    store(m, row, row);
    std::copy_n(row, cols, to);
  }
}

using TileFunction = void (*)(float*, Index, Index, const float*, Index, const float*, Index, Update);

// multiply_tile for 1, ..., kMicroRows rows.
template <class Half, std::size_t... I>
constexpr std::array<TileFunction, sizeof...(I)> tile_functions(std::index_sequence<I...>) {
  return {multiply_tile<Index{I} + 1, Half>...};
}
template <class Half>
inline constexpr auto kTileFunctions =
    tile_functions<Half>(std::make_index_sequence<std::size_t{kMicroRows}>());

// Rows in tiles of nearly one size: 8 rows are 4 + 4 and not 6 + 2, because a tile of two rows takes as long
// as one of four.
struct RowTiles {
  Index tiles, size, larger;  // the first `larger` tiles have one row more

  explicit RowTiles(Index rows)
      : tiles(ceil_div(rows, kMicroRows)), size(rows / tiles), larger(rows % tiles) {}
  Index rows(Index tile) const { return tile < larger ? size + 1 : size; }
  Index first(Index tile) const { return tile * size + std::min(tile, larger); }
};

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
