// Rows of a head as products read and leave them: where they lie, copied, or converted, since they may be stored in
// fewer bits than they are computed in. For one SIMD target.
#if defined(TILEGRAD_KERNELS_ATTENTION_STORED_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_ATTENTION_STORED_ROWS_INL_H_
#undef TILEGRAD_KERNELS_ATTENTION_STORED_ROWS_INL_H_
#else
#define TILEGRAD_KERNELS_ATTENTION_STORED_ROWS_INL_H_
#endif

#include <limits>
#include <type_traits>

#include "tilegrad/kernels/attention/flash.h"
#include "tilegrad/kernels/narrow-inl.h"
#include "tilegrad/kernels/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

// Copies rows into memory whose rows lie `stride` apart.
template <class T>
HWY_NOINLINE HWY_ATTR Mat<const T> copied(const StoredRows<const T>& x, Index stride, T* memory) {
  if constexpr (std::is_same_v<T, float>) {
    for (Index r = 0; r < x.brain.rows; ++r) widen_row(memory + r * stride, x.brain.row(r), x.brain.cols);
    for (Index r = 0; r < x.half.rows; ++r) widen_row(memory + r * stride, x.half.row(r), x.half.cols);
    if (x.is_narrow) return {memory, x.rows(), x.cols(), stride};
  }
  for (Index r = 0; r < x.wide.rows; ++r)
    map(
        memory + r * stride, x.wide.cols, [](auto v) HWY_ATTR { return v; }, x.wide.row(r));
  return {memory, x.wide.rows, x.wide.cols, stride};
}

// x in T: where it lies, or in `memory` if it is stored in fewer bits.
template <class T>
HWY_INLINE Mat<const T> widened(const StoredRows<const T>& x, T* memory) {
  return x.is_narrow ? copied(x, x.cols(), memory) : x.wide;
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
  return copied(rows, copied_stride<T>(rows.cols()), memory);
}

// y = or += x, rounded.
HWY_INLINE void store_narrowed(const StoredRows<float>& y, Write write, Mat<const float> x) {
  for (Index r = 0; r < y.brain.rows; ++r) narrow_row(y.brain.row(r), write, x.row(r), y.brain.cols);
  for (Index r = 0; r < y.half.rows; ++r) narrow_row(y.half.row(r), write, x.row(r), y.half.cols);
}

// y (n, dim) = or += the transpose of n columns of x (dim, panel). If y is stored in fewer bits than x is
// computed in, it is rounded once; `memory` (n, dim) is for that.
template <class T>
HWY_NOINLINE HWY_ATTR void store_transposed(const StoredRows<T>& y, Write write, const T* x, T* memory) {
  if constexpr (std::is_same_v<T, float>) {
    if (y.is_narrow) {
      transpose(memory, y.cols(), x, kPanel<T>, y.cols(), y.rows());
      return store_narrowed(y, write, Mat<const T>(memory, y.rows(), y.cols()));
    }
  }
  if (write == Write::overwrite) {
    transpose<T, false>(y.wide.data, y.wide.stride, x, kPanel<T>, y.wide.cols, y.wide.rows);
  } else {
    transpose<T, true>(y.wide.data, y.wide.stride, x, kPanel<T>, y.wide.cols, y.wide.rows);
  }
}

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
