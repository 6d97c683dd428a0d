// Flash attention with few queries: what a split of the keys leaves, and how another split is merged into it. For one
// SIMD target. The essay is in flash_decode.cpp.
#if defined(TILEGRAD_KERNELS_ATTENTION_DECODE_STATE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_ATTENTION_DECODE_STATE_INL_H_
#undef TILEGRAD_KERNELS_ATTENTION_DECODE_STATE_INL_H_
#else
#define TILEGRAD_KERNELS_ATTENTION_DECODE_STATE_INL_H_
#endif

#include "tilegrad/kernels/attention/online_softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

// y += a x
template <class T>
HWY_INLINE void add_row(T* y, T a, const T* x, Index n) {
  const auto va = hn::Set(Tag<T>(), a);
  map(
      y, n, [va](Vec<T> yi, Vec<T> xi) HWY_ATTR { return hn::MulAdd(va, xi, yi); }, static_cast<const T*>(y),
      x);
}

// y *= a
template <class T>
HWY_INLINE void scale_row(T* y, T a, Index n) {
  const auto va = hn::Set(Tag<T>(), a);
  map(
      y, n, [va](Vec<T> yi) HWY_ATTR { return hn::Mul(va, yi); }, static_cast<const T*>(y));
}

template <class T>
Index whole_vectors(Index n) {
  return ceil_div(n, kLanes<T>) * kLanes<T>;
}

// What the recurrence knows after some keys.
template <class T>
struct DecodeState {
  Index rows, dim_v;
  T* max;  // (rows, to whole vectors): m
  T* sum;  // (rows, to whole vectors): l
  T* o;    // (rows, Dv): O

  // In `memory` of size(rows, dim_v) elements.
  DecodeState(T* memory, Index rows_, Index dim_v_)
      : rows(rows_),
        dim_v(dim_v_),
        max(memory),
        sum(max + whole_vectors<T>(rows)),
        o(sum + whole_vectors<T>(rows)) {}
  static Index size(Index rows, Index dim_v) {
    return 2 * whole_vectors<T>(rows) + whole_vectors<T>(rows * dim_v);
  }

  // Before the first key.
  void clear() const {
    std::fill_n(max, whole_vectors<T>(rows), -std::numeric_limits<T>::infinity());
    std::fill_n(sum, whole_vectors<T>(rows), T{0});
    std::fill_n(o, rows * dim_v, T{0});
  }

  // Adds the keys of another split to what was seen so far; scores are c times the maxima, in units of log 2.
  // `mine` and `theirs` (rows, to whole vectors) are memory for the weights of rows.
  HWY_ATTR void merge(const DecodeState& other, T c, T* mine, T* theirs) const {
    const Tag<T> d;
    for (Index row = 0; row < rows; row += kLanes<T>) {
      const auto weights = merge_statistics<T>(max + row, sum + row, other.max + row, other.sum + row, c);
      hn::Store(weights.mine, d, mine + row);
      hn::Store(weights.other, d, theirs + row);
    }
    for (Index row = 0; row < rows; ++row) {
      scale_row(o + row * dim_v, mine[row], dim_v);
      add_row(o + row * dim_v, theirs[row], other.o + row * dim_v, dim_v);
    }
  }
};

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
