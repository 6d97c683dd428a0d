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
#include "tilegrad/kernels/pack-inl.h"
#include "tilegrad/kernels/panels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

// c = alpha x + beta c + bias for a vector of a row. With beta = 0 c is not read, and there may be no bias.
struct Update {
  float alpha, beta;
  const float* bias;  // of the row's first column

  Update from_column(Index col) const { return {alpha, beta, bias == nullptr ? nullptr : bias + col}; }

  HWY_INLINE Vec<float> operator()(Vec<float> x, const float* c, Index col) const {
    const auto y = scaled(x, c + col);
    return bias == nullptr ? y : hn::Add(y, hn::LoadU(Tag<float>(), bias + col));
  }

 private:
  HWY_INLINE Vec<float> scaled(Vec<float> x, const float* c) const {
    const Tag<float> d;
    const auto factor = hn::Set(d, alpha);
    if (beta == 0) return hn::Mul(factor, x);
    const auto old = hn::LoadU(d, c);
    return hn::MulAdd(factor, x, beta == 1 ? old : hn::Mul(hn::Set(d, beta), old));
  }
};

// A tile of `Rows` rows: c (Rows, cols) = alpha a b + beta c, for rows of a where they lie or as a sliver, and a panel b
// (inner, panel), of which the columns of `Half` are needed.
template <Index Rows, class Half, class A>
HWY_NOINLINE HWY_ATTR void multiply_tile(float* c, Index stride, Index cols, A a, const float* HWY_RESTRICT b,
                                         Index inner, Update update) {
  const Tag<float> d;
  Accumulators<float, Rows> sum;
  sum.clear();
  for (Index m = 0; m < Rows; ++m) hwy::Prefetch(c + m * stride);
  sum.template add_product<Half>(a, b, inner);
  const auto store = [&](Index m, const float* old, float* to) HWY_ATTR {
    hn::StoreU(update(sum.v[m][0], old, 0), d, to);
    hn::StoreU(update(sum.v[m][1], old, kLanes<float>), d, to + kLanes<float>);
  };
  if (cols == kPanel<float>) {
    HWY_UNROLL(16)
    for (Index m = 0; m < Rows; ++m) store(m, c + m * stride, c + m * stride);
    return;
  }
  // The last columns: through rows of our own, since memory may end within a vector.
  HWY_ALIGN float bias[kPanel<float>] = {};
  if (update.bias != nullptr) {
    std::copy_n(update.bias, cols, bias);
    update.bias = bias;
  }
  HWY_UNROLL(16)
  for (Index m = 0; m < Rows; ++m) {
    HWY_ALIGN float row[kPanel<float>] = {};
    float* to = c + m * stride;
    if (update.beta != 0) std::copy_n(to, cols, row);
    store(m, row, row);
    std::copy_n(row, cols, to);
  }
}

template <class A>
using TileFunction = void (*)(float*, Index, Index, A, const float*, Index, Update);

// multiply_tile for 1, ..., kMicroRows rows.
template <class Half, class A, std::size_t... I>
constexpr std::array<TileFunction<A>, sizeof...(I)> tile_functions(std::index_sequence<I...>) {
  return {multiply_tile<Index{I} + 1, Half, A>...};
}
template <class Half, class A>
inline constexpr auto kTileFunctions =
    tile_functions<Half, A>(std::make_index_sequence<std::size_t{kMicroRows}>());

// Rows in tiles of nearly one size: 8 rows are 4 + 4 and not 6 + 2, because a tile of two rows takes as long
// as one of four.
struct RowTiles {
  Index tiles, size, larger;  // the first `larger` tiles have one row more

  explicit RowTiles(Index rows)
      : tiles(ceil_div(rows, kMicroRows)), size(rows / tiles), larger(rows % tiles) {}
  Index rows(Index tile) const { return tile < larger ? size + 1 : size; }
  Index first(Index tile) const { return tile * size + std::min(tile, larger); }
};

// A block of a (rows, inner), for all tiles of its rows: where it lies.
struct RowsInPlace {
  Mat<const float> a;
  RowTiles tiles;

  explicit RowsInPlace(Mat<const float> block) : a(block), tiles(block.rows) {}
  Index inner() const { return a.cols; }
  RowMajor<float> tile(Index i) const { return {a.row(tiles.first(i)), a.stride}; }
};

// A block of a, packed: for each tile a sliver (inner, kMicroRows), in which its rows are columns.
struct Slivers {
  const float* data;
  Index terms;
  RowTiles tiles;

  Slivers(const float* packed, Index rows, Index inner) : data(packed), terms(inner), tiles(rows) {}
  Index inner() const { return terms; }
  Index stride() const { return packed::sliver_stride(terms, kMicroRows); }
  ColMajor<float> tile(Index i) const { return {data + i * stride(), kMicroRows}; }
};

// Packs the transpose of a, a block (inner, rows): some rows of it at a time, so that a line of either side is in the cache
// from its first to its last element. A vector takes along what lies beyond a sliver's columns, and writes it where the
// next term belongs, or into the gap after the sliver.
HWY_NOINLINE HWY_ATTR Slivers pack_slivers(float* to, Mat<const float> a) {
  constexpr Index kRows = 16;
  const Slivers slivers(to, a.cols, a.rows);
  const hn::CappedTag<float, 8> d;
  constexpr auto kWidth = static_cast<Index>(hn::MaxLanes(d));
  for (Index begin = 0; begin < a.rows; begin += kRows) {
    const Index end = std::min(begin + kRows, a.rows);
    for (Index i = 0; i < slivers.tiles.tiles; ++i) {
      const Index first = slivers.tiles.first(i), cols = slivers.tiles.rows(i);
      float* sliver = to + i * slivers.stride();
      const bool has_room = kWidth >= kMicroRows && first + kWidth <= a.cols;
      if (has_room) {
        for (Index k = begin; k < end; ++k)
          hn::StoreU(hn::LoadU(d, a.row(k) + first), d, sliver + k * kMicroRows);
      } else {
        for (Index k = begin; k < end; ++k) std::copy_n(a.row(k) + first, cols, sliver + k * kMicroRows);
      }
    }
  }
  return slivers;
}

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
