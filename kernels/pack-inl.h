// Transposes, and how matrices get into panels. For one SIMD target.
#if defined(TILEGRAD_KERNELS_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_PACK_INL_H_
#undef TILEGRAD_KERNELS_PACK_INL_H_
#else
#define TILEGRAD_KERNELS_PACK_INL_H_
#endif

#include <algorithm>

#include "tilegrad/kernels/panels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR
inline constexpr std::size_t kSquareBytes = 1;
#else
inline constexpr std::size_t kSquareBytes = 16;
#endif

// The side of the squares that a transpose works in: the lanes of a 128-bit vector.
template <class T>
inline constexpr Index kSide = std::max<Index>(kSquareBytes / sizeof(T), 1);

#if HWY_TARGET != HWY_SCALAR
// kSide elements of as many rows as D has lanes: block j of 128 bits has those of row kSide j.
template <class T, class D>
HWY_INLINE hn::Vec<D> load_blocks(D d, const T* x, Index stride) {
  constexpr auto kRows = static_cast<Index>(hn::MaxLanes(D()));
  if constexpr (kRows <= kSide<T>) {
    return hn::LoadU(d, x);
  } else {
    const hn::Half<D> half;
    return hn::Combine(d, load_blocks(half, x + kRows / 2 * stride, stride), load_blocks(half, x, stride));
  }
}
#endif

// Transposes kSide columns of as many rows as D has lanes: store(i, column i). The blocks of a vector are squares.
template <class T, class D, class F>
HWY_INLINE void transpose_columns(D d, const T* src, Index stride, F&& store) {
#if HWY_TARGET == HWY_SCALAR
  (void)stride;
  store(0, hn::LoadU(d, src));
#else
  const auto x0 = load_blocks(d, src, stride), x1 = load_blocks(d, src + stride, stride);
  if constexpr (kSide<T> == 4) {
    const auto x2 = load_blocks(d, src + 2 * stride, stride), x3 = load_blocks(d, src + 3 * stride, stride);
    const auto low02 = hn::InterleaveLower(d, x0, x2), high02 = hn::InterleaveUpper(d, x0, x2);
    const auto low13 = hn::InterleaveLower(d, x1, x3), high13 = hn::InterleaveUpper(d, x1, x3);
    store(0, hn::InterleaveLower(d, low02, low13));
    store(1, hn::InterleaveUpper(d, low02, low13));
    store(2, hn::InterleaveLower(d, high02, high13));
    store(3, hn::InterleaveUpper(d, high02, high13));
  } else {
    store(0, hn::InterleaveLower(d, x0, x1));
    store(1, hn::InterleaveUpper(d, x0, x1));
  }
#endif
}

// dst[c, r] = src[r, c], or += if kAdd, for a (rows, cols) source. Not inline, because many places
// need it and it is long.
template <class T, bool kAdd = false>
HWY_NOINLINE HWY_ATTR void transpose(T* dst, Index dst_stride, const T* src, Index src_stride, Index rows,
                                     Index cols) {
  const Index whole_rows = rows / kSide<T> * kSide<T>, whole_cols = cols / kSide<T> * kSide<T>;
  const auto block = [&](auto d, Index r, Index c) HWY_ATTR {
    transpose_columns<T>(d, src + r * src_stride + c, src_stride, [&](Index i, auto x) HWY_ATTR {
      T* to = dst + (c + i) * dst_stride + r;
      if constexpr (kAdd) x = hn::Add(hn::LoadU(d, to), x);
      hn::StoreU(x, d, to);
    });
  };
  // Whole vectors of rows, then squares.
  const auto for_blocks_of_rows = [&](auto&& f) HWY_ATTR {
    Index r = 0;
    for (; r + kLanes<T> <= rows; r += kLanes<T>) f(Tag<T>(), r);
    for (; r < whole_rows; r += kSide<T>) f(hn::FixedTag<T, static_cast<std::size_t>(kSide<T>)>(), r);
  };
  // Along the rows that lie farther apart, so that each of them is in the cache until it is done.
  if (src_stride >= dst_stride) {
    for_blocks_of_rows([&](auto d, Index r) HWY_ATTR {
      for (Index c = 0; c < whole_cols; c += kSide<T>) block(d, r, c);
    });
  } else {
    for (Index c = 0; c < whole_cols; c += kSide<T>)
      for_blocks_of_rows([&](auto d, Index r) HWY_ATTR { block(d, r, c); });
  }
  for (Index r = 0; r < rows; ++r) {
    for (Index c = r < whole_rows ? whole_cols : 0; c < cols; ++c) {
      T& to = dst[c * dst_stride + r];
      to = (kAdd ? to : T{0}) + src[r * src_stride + c];
    }
  }
}

// panel (cols, panel) = xᵀ for up to kPanel rows of x; the lanes after the last row are 0.
template <class T>
HWY_INLINE void pack_transposed(T* panel, Mat<const T> x) {
  if (x.rows < kPanel<T>) std::fill_n(panel, x.cols * kPanel<T>, T{0});
  transpose(panel, kPanel<T>, x.data, x.stride, x.rows, x.cols);
}

// Panels (cols, panel) of kPanel rows of x each, one after the other.
template <class T>
HWY_INLINE void pack_rows(T* panels, Mat<const T> x) {
  for (Index r = 0; r < x.rows; r += kPanel<T>)
    pack_transposed(panels + r * x.cols, x.row_block(r, std::min(kPanel<T>, x.rows - r)));
}

// Panels (rows, panel) of kPanel columns of x each, one after the other; the columns after the last are 0. Some rows at
// a time, so that a line of either side is in the cache from its first to its last element.
template <class T>
HWY_INLINE void pack_columns(T* panels, Mat<const T> x) {
  constexpr Index kRows = 16;
  const Tag<T> d;
  for (Index begin = 0; begin < x.rows; begin += kRows) {
    const Index end = std::min(begin + kRows, x.rows);
    for (Index c = 0; c < x.cols; c += kPanel<T>) {
      const Index n = std::min(kPanel<T>, x.cols - c);
      T* panel = panels + c * x.rows;
      for (Index r = begin; r < end; ++r) {
        if (n == kPanel<T>) {
          store_row(panel, r, hn::LoadU(d, x.row(r) + c), hn::LoadU(d, x.row(r) + c + kLanes<T>));
        } else {
          std::copy_n(x.row(r) + c, n, panel_row(panel, r));
          std::fill(panel_row(panel, r) + n, panel_row(panel, r + 1), T{0});
        }
      }
    }
  }
}

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
