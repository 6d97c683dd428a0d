// How matrices get into panels and out of them: transposes, packing, and the conversion of what is stored in
// fewer bits than it is computed in. For one SIMD target.
#if defined(TILEGRAD_KERNELS_ATTENTION_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_ATTENTION_TRANSPOSE_INL_H_
#undef TILEGRAD_KERNELS_ATTENTION_TRANSPOSE_INL_H_
#else
#define TILEGRAD_KERNELS_ATTENTION_TRANSPOSE_INL_H_
#endif

#include <algorithm>
#include <limits>
#include <type_traits>

#include "tilegrad/kernels/attention/flash.h"
#include "tilegrad/kernels/attention/panels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

// Copies rows into memory whose rows lie `stride` apart.
template <class T>
HWY_INLINE HWY_ATTR Mat<const T> copied(const StoredRows<const T>& x, Index stride, T* memory) {
  if constexpr (std::is_same_v<T, float>) {
    if (x.is_narrow) {
      for (Index r = 0; r < x.narrow.rows; ++r) {
        for (Index c = 0; c < x.narrow.cols; ++c) memory[r * stride + c] = widen(x.narrow(r, c));
      }
      return {memory, x.narrow.rows, x.narrow.cols, stride};
    }
  }
  for (Index r = 0; r < x.wide.rows; ++r)
    map(
        memory + r * stride, x.wide.cols, [](auto v) HWY_ATTR { return v; }, x.wide.row(r));
  return {memory, x.wide.rows, x.wide.cols, stride};
}

// x in T: where it lies, or in `memory` if it is stored in fewer bits.
template <class T>
HWY_INLINE Mat<const T> widened(const StoredRows<const T>& x, T* memory) {
  return x.is_narrow ? copied(x, x.narrow.cols, memory) : x.wide;
}

// From how many bytes between two rows on a copy of a tile is read faster, element by element, than its rows where
// they lie: rows a large power of two apart contend for the same few sets of the first-level cache. With 32 registers a
// panel has more lanes for each of these reads, and the copies cost more than they bring.
inline constexpr Index kFarRows = kFewRegisters ? 2048 : std::numeric_limits<Index>::max();

// Whether near_rows() copies: what is stored in fewer bits than T, or has rows far apart.
template <class T>
HWY_INLINE bool is_copied(const StoredHeads<const T>& x) {
  return x.is_narrow() || x.wide.stride_t * Index{sizeof(T)} >= kFarRows;
}
// The distance between rows of a copied tile: an odd number of cache lines, so that a column of it does not contend for
// few sets either.
template <class T>
HWY_INLINE Index copied_stride(Index cols) {
  constexpr Index kLine = 64 / sizeof(T);
  return (ceil_div(cols, kLine) | 1) * kLine;
}
// A tile as products read it again and again: where it lies, or in `memory` (rows, copied_stride).
template <class T>
HWY_INLINE HWY_ATTR Mat<const T> near_rows(const StoredHeads<const T>& x, Index b, Index h, Range range,
                                           T* memory) {
  const StoredRows<const T> rows(x, b, h, range);
  if (!is_copied(x)) return rows.wide;
  return copied(rows, copied_stride<T>(x.is_narrow() ? rows.narrow.cols : rows.wide.cols), memory);
}

// y = or += x, rounded.
HWY_INLINE void store_narrowed(Mat<bf16> y, Write write, Mat<const float> x) {
  for (Index r = 0; r < y.rows; ++r) {
    for (Index c = 0; c < y.cols; ++c)
      y(r, c) = narrow(write == Write::overwrite ? x(r, c) : widen(y(r, c)) + x(r, c));
  }
}

#if HWY_TARGET == HWY_SCALAR
inline constexpr std::size_t kSquareBytes = 1;
#else
inline constexpr std::size_t kSquareBytes = 16;
#endif

// The side of the squares that a transpose works in: the lanes of a 128-bit vector.
template <class T>
inline constexpr Index kSide = std::max<Index>(kSquareBytes / sizeof(T), 1);

// Transposes one square: store(i, row i of the transpose).
template <class T, class F>
HWY_INLINE void transpose_square(const T* src, Index stride, F&& store) {
#if HWY_TARGET == HWY_SCALAR
  (void)stride;
  store(0, hn::LoadU(hn::ScalableTag<T>(), src));
#else
  const hn::FixedTag<T, kSide<T> > d;
  const auto x0 = hn::LoadU(d, src), x1 = hn::LoadU(d, src + stride);
  if constexpr (kSide<T> == 4) {
    const auto x2 = hn::LoadU(d, src + 2 * stride), x3 = hn::LoadU(d, src + 3 * stride);
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

// dst[c, r] = src[r, c], or += if kAdd, for a (rows, cols) source.
template <class T, bool kAdd = false>
HWY_INLINE void transpose(T* dst, Index dst_stride, const T* src, Index src_stride, Index rows, Index cols) {
  const hn::FixedTag<T, static_cast<std::size_t>(kSide<T>)> d;
  const Index whole_rows = rows / kSide<T> * kSide<T>, whole_cols = cols / kSide<T> * kSide<T>;
  const auto square = [&](Index r, Index c) HWY_ATTR {
    transpose_square(src + r * src_stride + c, src_stride, [&](Index i, auto x) HWY_ATTR {
      T* to = dst + (c + i) * dst_stride + r;
      if constexpr (kAdd) x = hn::Add(hn::LoadU(d, to), x);
      hn::StoreU(x, d, to);
    });
  };
  // Along the rows that lie farther apart, so that each of them is in the cache until it is done.
  if (src_stride >= dst_stride) {
    for (Index r = 0; r < whole_rows; r += kSide<T>) {
      for (Index c = 0; c < whole_cols; c += kSide<T>) square(r, c);
    }
  } else {
    for (Index c = 0; c < whole_cols; c += kSide<T>) {
      for (Index r = 0; r < whole_rows; r += kSide<T>) square(r, c);
    }
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

// y (n, dim) = or += the transpose of n columns of x (dim, panel). If y is stored in fewer bits than x is
// computed in, it is rounded once; `memory` (n, dim) is for that.
template <class T>
HWY_INLINE void store_transposed(const StoredRows<T>& y, Write write, const T* x, T* memory) {
  if constexpr (std::is_same_v<T, float>) {
    if (y.is_narrow) {
      transpose(memory, y.narrow.cols, x, kPanel<T>, y.narrow.cols, y.narrow.rows);
      return store_narrowed(y.narrow, write, Mat<const T>(memory, y.narrow.rows, y.narrow.cols));
    }
  }
  if (write == Write::overwrite) {
    transpose<T, false>(y.wide.data, y.wide.stride, x, kPanel<T>, y.wide.cols, y.wide.rows);
  } else {
    transpose<T, true>(y.wide.data, y.wide.stride, x, kPanel<T>, y.wide.cols, y.wide.rows);
  }
}

// Panels of kPanel columns of x each, one after the other; the columns after the last are 0.
template <class T>
HWY_INLINE void pack_columns(T* panels, Mat<const T> x) {
  for (Index c = 0; c < x.cols; c += kPanel<T>) {
    const Index n = std::min(kPanel<T>, x.cols - c);
    for (Index r = 0; r < x.rows; ++r, panels += kPanel<T>) {
      std::copy_n(x.row(r) + c, n, panels);
      std::fill(panels + n, panels + kPanel<T>, T{0});
    }
  }
}

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
