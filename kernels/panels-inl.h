// Matrix products in registers, for flash attention and for gemm. For one SIMD target.
//
// A panel is a matrix [rows][kPanel] in our own aligned memory, two vectors wide. Every product reads one
// factor as a panel, by vectors, and the other element by element, where it lies. A block of kMicroRows rows of
// the product stays in registers.
#if defined(TILEGRAD_KERNELS_PANELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_PANELS_INL_H_
#undef TILEGRAD_KERNELS_PANELS_INL_H_
#else
#define TILEGRAD_KERNELS_PANELS_INL_H_
#endif

#include <algorithm>
#include <type_traits>

#include "tilegrad/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

// Lanes of a vector, and columns of a panel.
template <class T>
inline constexpr Index kLanes = static_cast<Index>(HWY_LANES(T));
template <class T>
inline constexpr Index kPanel = 2 * kLanes<T>;

// AVX2 and older have 16 vector registers, AVX-512 and NEON 32.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
inline constexpr bool kFewRegisters = false;
#else
inline constexpr bool kFewRegisters = true;
#endif
// Rows of a product that stay in registers: 2 accumulators each, of 32 registers or of 16. An accumulator takes a term
// every four cycles, so 8 are the least that keep two multipliers busy.
inline constexpr Index kMicroRows = kFewRegisters ? 6 : 8;
// Terms of a product in one turn of its loop. With 16 registers 8 are faster. With 32 they gain nothing, and the end of
// such a loop costs attention with few keys 5 % (Zen 5). Plain C++ is not worth the code.
inline constexpr int kTermsAtOnce = kFewRegisters && HWY_TARGET != HWY_SCALAR ? 8 : 1;

// The two vectors of row m of a panel.
template <class T>
HWY_INLINE T* panel_row(T* panel, Index m) {
  return panel + m * kPanel<T>;
}

// The factor that is read element by element: element (m, k) of a matrix, or of a matrix's transpose.
template <class T>
struct RowMajor {
  const T* data;
  Index stride;
  HWY_INLINE const T& at(Index m, Index k) const { return data[m * stride + k]; }
  HWY_INLINE RowMajor from_row(Index m) const { return {data + m * stride, stride}; }
  HWY_INLINE RowMajor from_inner(Index k) const { return {data + k, stride}; }
};
template <class T>
struct ColMajor {
  const T* data;
  Index stride;
  HWY_INLINE const T& at(Index m, Index k) const { return data[k * stride + m]; }
  HWY_INLINE ColMajor from_row(Index m) const { return {data + m, stride}; }
  HWY_INLINE ColMajor from_inner(Index k) const { return {data + k * stride, stride}; }
};

// Which of the two vectors of a panel's row a product needs.
struct LowLanes {
  static constexpr bool kLower = true, kUpper = false;
};
struct HighLanes {
  static constexpr bool kLower = false, kUpper = true;
};
struct AllLanes {
  static constexpr bool kLower = true, kUpper = true;
};

// Rows of a panel: the first `lower` ones matter in their lower vector alone, the last `upper` ones in their
// upper vector alone. This is the case along the diagonal of a causal mask, where a row of scores begins or
// ends within a panel, and half of the work is saved there.
struct LaneSplit {
  Index lower, both, upper;

  Index size() const { return lower + both + upper; }
  // The rows [begin, end) of these.
  LaneSplit part(Index begin, Index end) const {
    const Index both_begin = std::clamp(lower, begin, end),
                upper_begin = std::clamp(lower + both, begin, end);
    return {both_begin - begin, upper_begin - both_begin, end - upper_begin};
  }
};

template <class T, Index M>
struct Accumulators {
  Vec<T> v[M][2];

  HWY_INLINE void clear() {
    HWY_UNROLL(16)
    for (Index m = 0; m < M; ++m) v[m][0] = v[m][1] = hn::Zero(Tag<T>());
  }
  // += a (M, K) · b (K, panel). With half of a panel a product waits for its own sums: unrolling would not make it
  // faster.
  template <class Half = AllLanes, class A>
  HWY_INLINE void add_product(const A& a, const T* HWY_RESTRICT b, Index inner) {
    if constexpr (Half::kLower && Half::kUpper) {
      HWY_UNROLL(kTermsAtOnce)
      for (Index k = 0; k < inner; ++k) add_term<Half>(a, b, k);
    } else {
      HWY_UNROLL(1)
      for (Index k = 0; k < inner; ++k) add_term<Half>(a, b, k);
    }
  }
  // The same for an inner dimension whose rows of b are 0 in one of the vectors.
  template <class A>
  HWY_INLINE void add_product(const A& a, const T* HWY_RESTRICT b, const LaneSplit& inner) {
    add_product<LowLanes>(a, b, inner.lower);
    add_product<AllLanes>(a.from_inner(inner.lower), b + inner.lower * kPanel<T>, inner.both);
    const Index rest = inner.lower + inner.both;
    add_product<HighLanes>(a.from_inner(rest), b + rest * kPanel<T>, inner.upper);
  }

 private:
  template <class Half, class A>
  HWY_INLINE void add_term(const A& a, const T* HWY_RESTRICT b, Index k) {
    const Tag<T> d;
    const T* row = panel_row(b, k);
    const auto b0 = hn::Load(d, Half::kLower ? row : row + kLanes<T>);
    const auto b1 = hn::Load(d, Half::kUpper ? row + kLanes<T> : row);
    HWY_UNROLL(16)
    for (Index m = 0; m < M; ++m) {
      const auto x = hn::Set(d, a.at(m, k));
      if constexpr (Half::kLower) v[m][0] = hn::MulAdd(x, b0, v[m][0]);
      if constexpr (Half::kUpper) v[m][1] = hn::MulAdd(x, b1, v[m][1]);
    }
  }
};

// How many rows of a product, from the first on, are multiplied in blocks of kMicroRows. Blocks of 4 still keep the
// multipliers busy, one of 2 does not: it waits for its own sums. So the last 6 + 2 rows are two blocks of 4.
HWY_INLINE Index rows_in_whole_blocks(Index rows) {
  const Index pairs = kMicroRows == 6 && rows % 6 == 2 && rows > 2 ? 8 : 0;
  return (rows - pairs) / kMicroRows * kMicroRows;
}

// Calls f(m, size) for blocks of rows of [0, rows), where size is a compile-time constant: as many blocks of
// kMicroRows as there are, then smaller ones.
template <class F>
HWY_INLINE void for_row_blocks(Index rows, F&& f) {
  const Index whole = rows_in_whole_blocks(rows);
  Index m = 0;
  for (; m < whole; m += kMicroRows) f(m, std::integral_constant<Index, kMicroRows>());
  for (; m + 4 <= rows; m += 4) f(m, std::integral_constant<Index, 4>());
  if (m + 2 <= rows) {
    f(m, std::integral_constant<Index, 2>());
    m += 2;
  }
  if (m < rows) f(m, std::integral_constant<Index, 1>());
}

template <class T>
HWY_INLINE void store_row(T* panel, Index m, Vec<T> x0, Vec<T> x1) {
  hn::Store(x0, Tag<T>(), panel_row(panel, m));
  hn::Store(x1, Tag<T>(), panel_row(panel, m) + kLanes<T>);
}

// A block of rows of sums + a (rows, inner) · b (inner, panel), where sums (rows, panel) is 0 if it is null: for each
// row m of it, finish(m, x0, x1) gets its two vectors, of which one may be 0 instead.
template <class T, Index Rows, class Half, class Inner, class A, class F>
HWY_INLINE void multiply_block(const Inner& inner, const A& a, const T* b, const T* sums, F&& finish) {
  const Tag<T> d;
  Accumulators<T, Rows> c;
  c.clear();
  if constexpr (std::is_same_v<Inner, LaneSplit>) {
    c.add_product(a, b, inner);
  } else {
    c.template add_product<Half>(a, b, inner);
  }
  if (sums != nullptr) {
    HWY_UNROLL(16)
    for (Index i = 0; i < Rows; ++i) {
      c.v[i][0] = hn::Add(hn::Load(d, panel_row(sums, i)), c.v[i][0]);
      c.v[i][1] = hn::Add(hn::Load(d, panel_row(sums, i) + kLanes<T>), c.v[i][1]);
    }
  }
  HWY_UNROLL(16)
  for (Index i = 0; i < Rows; ++i) finish(i, c.v[i][0], c.v[i][1]);
}

// to (rows, panel) = sums + a · b. Not inline: it is long, and the products of several passes share it.
template <class T, class Half, class Inner, class A>
HWY_NOINLINE HWY_ATTR void store_product(T* to, Index rows, const Inner& inner, const A& a, const T* b,
                                         const T* sums) {
  for_row_blocks(rows, [&](Index m, auto size) HWY_ATTR {
    multiply_block<T, size(), Half>(inner, a.from_row(m), b, sums == nullptr ? nullptr : panel_row(sums, m),
                                    [&](Index i, Vec<T> x0, Vec<T> x1)
                                        HWY_ATTR { store_row(to, m + i, x0, x1); });
  });
}

// Calls finish(m, x0, x1) for the rows [begin, end) of a panel.
template <class T, class F>
HWY_INLINE void for_stored_rows(const T* panel, Index begin, Index end, F&& finish) {
  const Tag<T> d;
  HWY_UNROLL(1)
  for (Index m = begin; m < end; ++m)
    finish(m, hn::Load(d, panel_row(panel, m)), hn::Load(d, panel_row(panel, m) + kLanes<T>));
}

// For each row m of a (rows, inner) · b (inner, panel), finish(m, x0, x1) gets its two vectors. Whole blocks of rows
// are finished in their registers; the few other rows are stored in `sums` (rows, panel) first, by code that all
// products share. A long inner dimension is cut into parts: a part of b stays in the first-level cache for all rows,
// and a sum of short sums loses less to rounding than one long sum. `sums` holds what was summed so far.
template <class T, class F>
HWY_INLINE void multiply_in_parts(Index rows, Index inner, Index part, RowMajor<T> a, const T* b, T* sums,
                                  F&& finish) {
  const T* so_far = nullptr;
  Index k = 0;
  for (; k + part < inner; k += part) {
    store_product<T, AllLanes>(sums, rows, part, a.from_inner(k), panel_row(b, k), so_far);
    so_far = sums;
  }
  const Index last = inner - k, whole = rows_in_whole_blocks(rows);
  const auto so_far_from = [&](Index m)
                               HWY_ATTR { return so_far == nullptr ? nullptr : panel_row(so_far, m); };
  a = a.from_inner(k);
  b = panel_row(b, k);
  for (Index m = 0; m < whole; m += kMicroRows) {
    multiply_block<T, kMicroRows, AllLanes>(last, a.from_row(m), b, so_far_from(m),
                                            [&](Index i, Vec<T> x0, Vec<T> x1)
                                                HWY_ATTR { finish(m + i, x0, x1); });
  }
  if (whole == rows) return;
  store_product<T, AllLanes>(panel_row(sums, whole), rows - whole, last, a.from_row(whole), b,
                             so_far_from(whole));
  for_stored_rows<T>(sums, whole, rows, finish);
}

// The same product, stored in `sums`.
template <class T, class Half = AllLanes>
HWY_INLINE void store_in_parts(T* sums, Index rows, Index inner, Index part, RowMajor<T> a, const T* b) {
  const T* so_far = nullptr;
  for (Index k = 0; k < inner || k == 0; k += part) {
    store_product<T, Half>(sums, rows, std::min(part, inner - k), a.from_inner(k), panel_row(b, k), so_far);
    so_far = sums;
  }
}
// The same where some rows of the product matter in one vector alone; the other vector is 0.
template <class T>
HWY_NOINLINE HWY_ATTR void store_in_parts(T* sums, const LaneSplit& rows, Index inner, Index part,
                                          RowMajor<T> a, const T* b) {
  const Index upper = rows.lower + rows.both;
  if (rows.lower > 0) store_in_parts<T, LowLanes>(sums, rows.lower, inner, part, a, b);
  if (rows.both > 0) {
    store_in_parts<T>(panel_row(sums, rows.lower), rows.both, inner, part, a.from_row(rows.lower), b);
  }
  if (rows.upper > 0) {
    store_in_parts<T, HighLanes>(panel_row(sums, upper), rows.upper, inner, part, a.from_row(upper), b);
  }
}

// multiply_in_parts() where some rows of the product matter in one vector alone. These are few, and stored first.
template <class T, class F>
HWY_INLINE void multiply_in_parts(const LaneSplit& rows, Index inner, Index part, RowMajor<T> a, const T* b,
                                  T* sums, F&& finish) {
  const Index upper = rows.lower + rows.both;
  multiply_in_parts<T>(rows.both, inner, part, a.from_row(rows.lower), b, panel_row(sums, rows.lower),
                       [&](Index m, Vec<T> x0, Vec<T> x1) HWY_ATTR { finish(rows.lower + m, x0, x1); });
  store_in_parts(sums, LaneSplit{rows.lower, 0, 0}, inner, part, a, b);
  store_in_parts(panel_row(sums, upper), LaneSplit{0, 0, rows.upper}, inner, part, a.from_row(upper), b);
  for_stored_rows<T>(sums, 0, rows.lower, finish);
  for_stored_rows<T>(sums, upper, rows.size(), finish);
}

// c (rows, panel) += a · b. Of a long inner dimension 64 terms are summed at a time, starting at zero, and
// added to c: the error of a sum of n terms in parts of m grows with sqrt(n (m + n / m)) instead of n.
template <class T, class A>
HWY_INLINE void multiply_add(T* c, Index rows, const LaneSplit& inner, const A& a, const T* b) {
  constexpr Index kPart = 64;
  for (Index begin = 0; begin < inner.size(); begin += kPart) {
    const LaneSplit part = inner.part(begin, std::min(begin + kPart, inner.size()));
    if (part.both == part.size()) {  // nearly always, and one loop is faster than three
      store_product<T, AllLanes>(c, rows, part.both, a.from_inner(begin), panel_row(b, begin), c);
    } else {
      store_product<T, AllLanes>(c, rows, part, a.from_inner(begin), panel_row(b, begin), c);
    }
  }
}

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
