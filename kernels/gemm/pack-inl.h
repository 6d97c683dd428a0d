// How the right factor gets into panels. For one SIMD target.
#if defined(TILEGRAD_KERNELS_GEMM_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_GEMM_PACK_INL_H_
#undef TILEGRAD_KERNELS_GEMM_PACK_INL_H_
#else
#define TILEGRAD_KERNELS_GEMM_PACK_INL_H_
#endif

#include <algorithm>

#include "tilegrad/kernels/gemm/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

#if HWY_TARGET != HWY_SCALAR
// Four elements of each of kLanes / 4 rows that are four apart: block j has row 4 j.
template <class D>
HWY_INLINE hn::Vec<D> load_blocks(D d, const float* x, Index stride) {
  if constexpr (hn::MaxLanes(D()) <= 4) {
    return hn::LoadU(d, x);
  } else {
    const hn::Half<D> half;
    constexpr Index kRows = static_cast<Index>(hn::MaxLanes(D())) / 2;
    return hn::Combine(d, load_blocks(half, x + kRows * stride, stride), load_blocks(half, x, stride));
  }
}

// to[k][0 .. kLanes) = x[0 .. kLanes)[k] for four k: a transpose of 4 x 4 in every block of 128 bits.
HWY_INLINE void transpose_four(float* to, const float* x, Index stride) {
  const Tag<float> d;
  const auto x0 = load_blocks(d, x, stride), x1 = load_blocks(d, x + stride, stride);
  const auto x2 = load_blocks(d, x + 2 * stride, stride), x3 = load_blocks(d, x + 3 * stride, stride);
  const auto low02 = hn::InterleaveLower(d, x0, x2), high02 = hn::InterleaveUpper(d, x0, x2);
  const auto low13 = hn::InterleaveLower(d, x1, x3), high13 = hn::InterleaveUpper(d, x1, x3);
  hn::Store(hn::InterleaveLower(d, low02, low13), d, to);
  hn::Store(hn::InterleaveUpper(d, low02, low13), d, to + kTileCols);
  hn::Store(hn::InterleaveLower(d, high02, high13), d, to + 2 * kTileCols);
  hn::Store(hn::InterleaveUpper(d, high02, high13), d, to + 3 * kTileCols);
}
#endif

// One panel (inner, kTileCols) = xᵀ for up to kTileCols rows of x (n, inner); columns after the last are 0.
HWY_INLINE void pack_panel_transposed(float* panel, Mat<const float> x) {
  Index k = 0;
#if HWY_TARGET != HWY_SCALAR
  if (x.rows == kTileCols) {
    for (; k + 4 <= x.cols; k += 4) {
      transpose_four(panel + k * kTileCols, x.data + k, x.stride);
      transpose_four(panel + k * kTileCols + kLanes, x.data + kLanes * x.stride + k, x.stride);
    }
  }
#endif
  for (; k < x.cols; ++k) {
    float* to = panel + k * kTileCols;
    for (Index n = 0; n < x.rows; ++n) to[n] = x(n, k);
    std::fill(to + x.rows, to + kTileCols, 0.0f);
  }
}

// As many rows of the source as are read through before the next panels' turn: their lines are used up while
// they are in the cache, and whole lines of a panel are written.
inline constexpr Index kRowsAtOnce = 16;

// Panels (inner, kTileCols) of the columns of b (inner, n); columns after the last are 0.
HWY_INLINE void pack_right(float* panels, Mat<const float> b) {
  const Tag<float> d;
  for (Index begin = 0; begin < b.rows; begin += kRowsAtOnce) {
    const Index end = std::min(begin + kRowsAtOnce, b.rows);
    for (Index col = 0; col < b.cols; col += kTileCols) {
      const Index cols = std::min(kTileCols, b.cols - col);
      float* to = panels + col * b.rows + begin * kTileCols;
      for (Index k = begin; k < end; ++k, to += kTileCols) {
        const float* from = b.row(k) + col;
        if (cols == kTileCols) {
          hn::Store(hn::LoadU(d, from), d, to);
          hn::Store(hn::LoadU(d, from + kLanes), d, to + kLanes);
        } else {
          std::copy_n(from, cols, to);
          std::fill(to + cols, to + kTileCols, 0.0f);
        }
      }
    }
  }
}

// The same for b transposed, (n, inner).
HWY_INLINE void pack_right_transposed(float* panels, Mat<const float> b) {
  for (Index col = 0; col < b.rows; col += kTileCols) {
    pack_panel_transposed(panels + col * b.cols, b.row_block(col, std::min(kTileCols, b.rows - col)));
  }
}

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
