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
#include "tilegrad/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

inline constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
inline constexpr Index kTileCols = 2 * kLanes;

// Two vectors of each row are accumulators: 16 of 32 registers, or 12 of 16. An accumulator takes a term
// every four cycles, so eight are the least.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
inline constexpr Index kTileRows = 8;
#else
inline constexpr Index kTileRows = 6;
#endif

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
// (inner, kTileCols) of which the first `Vectors` vectors are needed, the last of them perhaps in part.
template <Index Rows, Index Vectors>
HWY_NOINLINE HWY_ATTR void multiply_tile(float* c, Index stride, Index cols, const float* a, Index a_stride,
                                         const float* HWY_RESTRICT b, Index inner, Update update) {
  const Tag<float> d;
  Vec<float> sum[Rows][Vectors];
  HWY_UNROLL(16)
  for (Index m = 0; m < Rows; ++m) {
    for (Index v = 0; v < Vectors; ++v) sum[m][v] = hn::Zero(d);
    hwy::Prefetch(c + m * stride);
  }
  for (Index k = 0; k < inner; ++k) {
    Vec<float> right[Vectors];
    HWY_UNROLL(2)
    for (Index v = 0; v < Vectors; ++v) right[v] = hn::Load(d, b + k * kTileCols + v * kLanes);
    HWY_UNROLL(16)
    for (Index m = 0; m < Rows; ++m) {
      const auto left = hn::Set(d, a[m * a_stride + k]);
      HWY_UNROLL(2)
      for (Index v = 0; v < Vectors; ++v) sum[m][v] = hn::MulAdd(left, right[v], sum[m][v]);
    }
  }
  if (cols == Vectors * kLanes) {
    HWY_UNROLL(16)
    for (Index m = 0; m < Rows; ++m) {
      HWY_UNROLL(2)
      for (Index v = 0; v < Vectors; ++v) {
        float* to = c + m * stride + v * kLanes;
        hn::StoreU(update(sum[m][v], to), d, to);
      }
    }
    return;
  }
  // The last columns: through a row of our own, since memory ends within a vector.
  HWY_UNROLL(16)
  for (Index m = 0; m < Rows; ++m) {
    HWY_ALIGN float row[kTileCols] = {};
    float* to = c + m * stride;
    if (update.beta != 0) std::copy_n(to, cols, row);
    HWY_UNROLL(2)
    for (Index v = 0; v < Vectors; ++v) hn::Store(update(sum[m][v], row + v * kLanes), d, row + v * kLanes);
    std::copy_n(row, cols, to);
  }
}

using TileFunction = void (*)(float*, Index, Index, const float*, Index, const float*, Index, Update);

// multiply_tile for 1, ..., kTileRows rows.
template <Index Vectors, std::size_t... I>
constexpr std::array<TileFunction, sizeof...(I)> tile_functions(std::index_sequence<I...>) {
  return {multiply_tile<Index{I} + 1, Vectors>...};
}
template <Index Vectors>
inline constexpr auto kTileFunctions =
    tile_functions<Vectors>(std::make_index_sequence<std::size_t{kTileRows}>());

// Rows in tiles of nearly one size: 8 rows are 4 + 4 and not 6 + 2, because a tile of two rows takes as long
// as one of four.
struct RowTiles {
  Index tiles, size, larger;  // the first `larger` tiles have one row more

  explicit RowTiles(Index rows)
      : tiles(ceil_div(rows, kTileRows)), size(rows / tiles), larger(rows % tiles) {}
  Index rows(Index tile) const { return tile < larger ? size + 1 : size; }
  Index first(Index tile) const { return tile * size + std::min(tile, larger); }
};

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
