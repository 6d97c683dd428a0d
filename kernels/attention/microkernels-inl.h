// The matrix products, exponentials and transposes of flash attention, for one SIMD target. Included again
// for each target, hence no #pragma once but the guard that Highway asks for.
//
// A panel is a matrix [rows][kPanel] in our own aligned memory, two vectors wide. Every product reads one
// factor as a panel, by vectors, and the other element by element from wherever it lies, so that Q, K, V and
// dO are used in their natural layout. A block of kMicroRows rows of the product stays in registers.
#if defined(TILEGRAD_KERNELS_FLASH_MICROKERNELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_FLASH_MICROKERNELS_INL_H_
#undef TILEGRAD_KERNELS_FLASH_MICROKERNELS_INL_H_
#else
#define TILEGRAD_KERNELS_FLASH_MICROKERNELS_INL_H_
#endif

#include <type_traits>

#include "tilegrad/kernels/bf16.h"
#include "tilegrad/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

// Lanes of a vector, and columns of a panel.
template <class T>
inline constexpr Index kLanes = static_cast<Index>(HWY_LANES(T));
template <class T>
inline constexpr Index kPanel = 2 * kLanes<T>;

// Rows of a product that stay in registers: 2 accumulators each, of 32 registers or of 16.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
inline constexpr Index kMicroRows = 8;
#else
inline constexpr Index kMicroRows = 6;
#endif

// The coefficients of 2^x = 1 + x (c₁ + x (c₂ + ...)) on [−½, ½], relative error 2e-8 in f32 and 2e-16 in f64.
template <class T>
struct Exp2Polynomial;
template <>
struct Exp2Polynomial<float> {
  static constexpr float kC[] = {.6931472f,   .24022648f,   .055503324f,
                                 .009618437f, .0013398874f, .00015353362f};
};
template <>
struct Exp2Polynomial<double> {
  static constexpr double kC[] = {
      0.69314718055994530942,     0.2402265069591009822,    0.055504108664821594339,
      0.0096181291076068885273,   0.001333355814641693531,  0.00015403530441736050155,
      0.000015252733829836118394, 1.3215442587921689653e-6, 1.0178062445845773521e-7,
      7.0725859492692236999e-9,   4.4549605981865183938e-10};
};

template <class T>
HWY_INLINE Vec<T> exp2_fraction(Vec<T> f) {
  const Tag<T> d;
  constexpr int n = static_cast<int>(std::size(Exp2Polynomial<T>::kC));
  auto p = hn::Set(d, Exp2Polynomial<T>::kC[n - 1]);
  HWY_UNROLL(16)
  for (int i = n - 2; i >= 0; --i) p = hn::MulAdd(p, f, hn::Set(d, Exp2Polynomial<T>::kC[i]));
  return hn::MulAdd(p, f, hn::Set(d, T{1}));
}

// The integer nearest to a number; on targets without an instruction that scales by 2^n also the same with its
// bits in the lowest place.
template <class T>
struct Nearest {
  Vec<T> n;
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  HWY_INLINE explicit Nearest(Vec<T> x) : n(hn::Round(x)) {}
#else
  static constexpr int kMantissaBits = std::numeric_limits<T>::digits - 1;
  static constexpr T kMagic = T{1.5} * static_cast<T>(std::int64_t{1} << kMantissaBits);
  Vec<T> shifted;
  HWY_INLINE explicit Nearest(Vec<T> x)
      : n(hn::Sub(hn::Add(x, hn::Set(Tag<T>(), kMagic)), hn::Set(Tag<T>(), kMagic))),
        shifted(hn::Add(x, hn::Set(Tag<T>(), kMagic))) {}
#endif
};

// 2^x = 2^f 2^n for x = n + f below the overflow of T. 0 where 2^x is not a normal number, so 2^−inf = 0, whatever
// f is; NaN stays NaN.
template <class T>
HWY_INLINE Vec<T> exp2_of_parts(Vec<T> x, const Nearest<T>& nearest, Vec<T> f) {
  const Tag<T> d;
  const auto p = exp2_fraction<T>(f);
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  // One instruction scales by a power of two and takes care of what underflows.
  const auto in_range = hn::Not(hn::Lt(x, hn::Set(d, T{-2000})));
  if constexpr (sizeof(T) == 4) {
    return Vec<T>{_mm512_maskz_scalef_ps(in_range.raw, p.raw, nearest.n.raw)};
  } else {
    return Vec<T>{_mm512_maskz_scalef_pd(in_range.raw, p.raw, nearest.n.raw)};
  }
#else
  const hn::RebindToSigned<Tag<T>> di;
  const auto exponent = hn::ShiftLeft<Nearest<T>::kMantissaBits>(hn::BitCast(di, nearest.shifted));
  const auto y = hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
  const auto lowest = hn::Set(d, static_cast<T>(std::numeric_limits<T>::min_exponent - 1));
  return hn::IfThenElse(hn::IsNaN(x), x, hn::IfThenZeroElse(hn::Lt(x, lowest), y));
#endif
}
template <class T>
HWY_INLINE Vec<T> exp2(Vec<T> x) {
  const Nearest<T> nearest(x);
  return exp2_of_parts<T>(x, nearest, hn::Sub(x, nearest.n));
}

// 2^(c x + a + b) for an a as large as c x and a b that is smaller than a's rounding. The sum is rounded where it
// is small, after its integer was taken away: its rounding is a relative error of the power.
template <class T>
HWY_INLINE Vec<T> exp2_of_sum(Vec<T> x, Vec<T> c, Vec<T> a, Vec<T> b) {
  const auto sum = hn::MulAdd(x, c, a);
  const Nearest<T> nearest(sum);
  return exp2_of_parts<T>(sum, nearest, hn::Add(hn::MulAdd(x, c, hn::Sub(a, nearest.n)), b));
}

// Highway's Tanh turns inf and NaN into something else.
template <class T>
HWY_INLINE Vec<T> tanh(Vec<T> x) {
  const Tag<T> d;
  const auto bound = hn::Set(d, T{20});
  const auto y = hn::Tanh(d, hn::Max(hn::Min(x, bound), hn::Neg(bound)));
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

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
// upper vector alone. So it is along the diagonal of a causal mask, where a row of scores begins or ends
// within a panel, and half of the work is saved there.
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
  // += a (M, K) · b (K, panel)
  template <class Half = AllLanes, class A>
  HWY_INLINE void add_product(const A& a, const T* HWY_RESTRICT b, Index inner) {
    const Tag<T> d;
    for (Index k = 0; k < inner; ++k) {
      const T* row = b + k * kPanel<T>;
      const auto b0 = hn::Load(d, Half::kLower ? row : row + kLanes<T>);
      const auto b1 = hn::Load(d, Half::kUpper ? row + kLanes<T> : row);
      HWY_UNROLL(16)
      for (Index m = 0; m < M; ++m) {
        const auto x = hn::Set(d, a.at(m, k));
        if constexpr (Half::kLower) v[m][0] = hn::MulAdd(x, b0, v[m][0]);
        if constexpr (Half::kUpper) v[m][1] = hn::MulAdd(x, b1, v[m][1]);
      }
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
};

// Calls f(m, size) for blocks of rows of [0, rows), where size is a compile-time constant: as many blocks of
// kMicroRows as there are, then smaller ones.
template <class F>
HWY_INLINE void for_row_blocks(Index rows, F&& f) {
  Index m = 0;
  for (; m + kMicroRows <= rows; m += kMicroRows) f(m, std::integral_constant<Index, kMicroRows>());
  if (m + 4 <= rows) {
    f(m, std::integral_constant<Index, 4>());
    m += 4;
  }
  if (m + 2 <= rows) {
    f(m, std::integral_constant<Index, 2>());
    m += 2;
  }
  if (m < rows) f(m, std::integral_constant<Index, 1>());
}

// a (rows, inner) · b (inner, panel): for each row m of the product, finish(m, x0, x1) gets its two vectors,
// of which one may be 0 instead.
template <class T, class Half = AllLanes, class Inner, class A, class F>
HWY_INLINE void multiply(Index rows, const Inner& inner, const A& a, const T* b, F&& finish) {
  for_row_blocks(rows, [&](Index m, auto size) HWY_ATTR {
    constexpr Index kRows = size();
    Accumulators<T, kRows> c;
    c.clear();
    if constexpr (std::is_same_v<Inner, LaneSplit>) {
      c.add_product(a.from_row(m), b, inner);
    } else {
      c.template add_product<Half>(a.from_row(m), b, inner);
    }
    HWY_UNROLL(16)
    for (Index i = 0; i < kRows; ++i) finish(m + i, c.v[i][0], c.v[i][1]);
  });
}

template <class T>
HWY_INLINE void store_row(T* panel, Index m, Vec<T> x0, Vec<T> x1) {
  hn::Store(x0, Tag<T>(), panel_row(panel, m));
  hn::Store(x1, Tag<T>(), panel_row(panel, m) + kLanes<T>);
}

// The same for a long inner dimension, in parts: a part of b stays in the first-level cache for all rows, and
// a sum of short sums loses less to rounding than one long sum. `sums` (rows, panel) holds what was summed so
// far.
template <class T, class Half = AllLanes, class F>
HWY_INLINE void multiply_in_parts(Index rows, Index inner, Index part, RowMajor<T> a, const T* b, T* sums,
                                  F&& finish) {
  const Tag<T> d;
  const auto first = [&](Index i, Vec<T> x0, Vec<T> x1) HWY_ATTR { store_row(sums, i, x0, x1); };
  const auto add = [&](Index i, Vec<T> x0, Vec<T> x1, auto&& then) HWY_ATTR {
    const T* row = panel_row(sums, i);
    then(i, hn::Add(hn::Load(d, row), x0), hn::Add(hn::Load(d, row + kLanes<T>), x1));
  };
  if (inner <= part) return multiply<T, Half>(rows, inner, a, b, finish);
  multiply<T, Half>(rows, part, a, b, first);
  Index k = part;
  for (; k + part < inner; k += part) {
    multiply<T, Half>(rows, part, a.from_inner(k), panel_row(b, k),
                      [&](Index i, Vec<T> x0, Vec<T> x1) HWY_ATTR { add(i, x0, x1, first); });
  }
  multiply<T, Half>(rows, inner - k, a.from_inner(k), panel_row(b, k),
                    [&](Index i, Vec<T> x0, Vec<T> x1) HWY_ATTR { add(i, x0, x1, finish); });
}

// The same where some rows of the product matter in one vector alone.
template <class T, class F>
HWY_INLINE void multiply_in_parts(const LaneSplit& rows, Index inner, Index part, RowMajor<T> a, const T* b,
                                  T* sums, F&& finish) {
  const auto some = [&](auto half, Index first, Index n) HWY_ATTR {
    multiply_in_parts<T, decltype(half)>(n, inner, part, a.from_row(first), b, panel_row(sums, first),
                                         [&](Index m, Vec<T> x0, Vec<T> x1)
                                             HWY_ATTR { finish(first + m, x0, x1); });
  };
  some(AllLanes(), rows.lower, rows.both);
  if (rows.lower > 0) some(LowLanes(), 0, rows.lower);
  if (rows.upper > 0) some(HighLanes(), rows.lower + rows.both, rows.upper);
}

// c (rows, panel) += a · b. Of a long inner dimension 64 terms are summed at a time, starting at zero, and added
// to c: the error of a sum of n terms in parts of m grows with sqrt(n (m + n / m)) instead of n.
template <class T, class A>
HWY_INLINE void multiply_add(T* c, Index rows, const LaneSplit& inner, const A& a, const T* b) {
  constexpr Index kPart = 64;
  const Tag<T> d;
  for (Index begin = 0; begin < inner.size(); begin += kPart) {
    const LaneSplit part = inner.part(begin, std::min(begin + kPart, inner.size()));
    multiply<T>(rows, part, a.from_inner(begin), panel_row(b, begin),
                [&](Index m, Vec<T> x0, Vec<T> x1) HWY_ATTR {
                  T* row = panel_row(c, m);
                  store_row(c, m, hn::Add(hn::Load(d, row), x0), hn::Add(hn::Load(d, row + kLanes<T>), x1));
                });
  }
}

// x as the products read it: where it lies, or in `memory` if it is stored in fewer bits.
template <class Stored>
HWY_INLINE Mat<const Compute<Stored>> widened(Mat<const Stored> x, [[maybe_unused]] Compute<Stored>* memory) {
  if constexpr (std::is_same_v<Stored, Compute<Stored>>) {
    return x;
  } else {
    for (Index r = 0; r < x.rows; ++r) {
      for (Index c = 0; c < x.cols; ++c) memory[r * x.cols + c] = widen(x(r, c));
    }
    return {memory, x.rows, x.cols};
  }
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
  const hn::FixedTag<T, kSide<T>> d;
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

// panel (cols, panel) = xᵀ for up to kPanel rows of x; the lanes behind the last row are 0.
template <class T>
HWY_INLINE void pack_transposed(T* panel, Mat<const T> x) {
  if (x.rows < kPanel<T>) std::fill_n(panel, x.cols * kPanel<T>, T{0});
  transpose(panel, kPanel<T>, x.data, x.stride, x.rows, x.cols);
}

// y (n, dim) = or += the transpose of n columns of x (dim, panel). If y is stored in fewer bits than x is
// computed in, it is rounded once; `memory` (n, dim) is for that.
template <class Stored>
HWY_INLINE void store_transposed(Mat<Stored> y, Write write, const Compute<Stored>* x,
                                 Compute<Stored>* memory) {
  using T = Compute<Stored>;
  if constexpr (std::is_same_v<Stored, T>) {
    if (write == Write::overwrite) {
      transpose<T, false>(y.data, y.stride, x, kPanel<T>, y.cols, y.rows);
    } else {
      transpose<T, true>(y.data, y.stride, x, kPanel<T>, y.cols, y.rows);
    }
  } else {
    transpose(memory, y.cols, x, kPanel<T>, y.cols, y.rows);
    store_narrowed(y, write, Mat<const T>(memory, y.rows, y.cols));
  }
}

// Panels of kPanel columns of x each, one behind the other; the columns behind the last are 0.
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

// Whether x holds neither NaN nor Inf.
template <class T>
HWY_INLINE bool all_finite(Mat<const T> x) {
  T sum = 0;  // 0 · x is NaN unless x is finite
  for (Index r = 0; r < x.rows; ++r) {
    const T* row = x.row(r);
    const Tag<T> d;
    auto zeros = hn::Zero(d);
    Index c = 0;
    for (; c + kLanes<T> <= x.cols; c += kLanes<T>)
      zeros = hn::MulAdd(hn::LoadU(d, row + c), hn::Zero(d), zeros);
    sum += hn::GetLane(hn::SumOfLanes(d, zeros));
    for (; c < x.cols; ++c) sum += T{0} * row[c];
  }
  return sum == 0;
}

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
