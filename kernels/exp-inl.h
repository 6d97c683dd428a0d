// Exponentials, and functions made of them, for one SIMD target. This and the other -inl.h files are included again for each target,
// hence no #pragma once but the guard that Highway asks for.
#if defined(TILEGRAD_KERNELS_EXP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_EXP_INL_H_
#undef TILEGRAD_KERNELS_EXP_INL_H_
#else
#define TILEGRAD_KERNELS_EXP_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>

#include <cstdint>
#include <limits>
#include <type_traits>

#include "tilegrad/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

// The coefficients of 2^x = 1 + x (c₁ + x (c₂ + ...)) on [−½, ½], relative error 2e-8 in f32 and 2e-16 in
// f64.
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

// The integer n that is nearest to x, and a way to multiply by 2^n.
template <class T>
struct PowerOfTwo {
  Vec<T> n;
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  // One instruction scales by a power of two and handles underflow.
  hn::Mask<Tag<T> > in_range;
  HWY_INLINE explicit PowerOfTwo(Vec<T> x)
      : n(hn::Round(x)), in_range(hn::Not(hn::Lt(x, hn::Set(Tag<T>(), T{-2000})))) {}
  HWY_INLINE Vec<T> scale(Vec<T> y) const {
    if constexpr (sizeof(T) == 4) {
      return Vec<T>{_mm512_maskz_scalef_ps(in_range.raw, y.raw, n.raw)};
    } else {
      return Vec<T>{_mm512_maskz_scalef_pd(in_range.raw, y.raw, n.raw)};
    }
  }
  HWY_INLINE static Vec<T> bounded(Vec<T> x) { return x; }
  HWY_INLINE static Vec<T> bounded_fraction(Vec<T> f) { return f; }
#else
  // A sum as large as this is rounded to an integer, which stands in the lowest bits of its mantissa: n + bias, the
  // exponent field of 2^n. For the least exponent that is 0, and so is the number.
  static constexpr int kMantissaBits = std::numeric_limits<T>::digits - 1;
  static constexpr T kBias = std::numeric_limits<T>::max_exponent - 1;
  static constexpr T kMagic = T{1.5} * static_cast<T>(std::int64_t{1} << kMantissaBits) + kBias;
  Vec<T> power;
  HWY_INLINE explicit PowerOfTwo(Vec<T> x) {
    const Tag<T> d;
    const hn::RebindToSigned<Tag<T> > di;
    const auto magic = hn::Set(d, kMagic), sum = hn::Add(x, magic);
    n = hn::Sub(sum, magic);
    power = hn::BitCast(d, hn::ShiftLeft<kMantissaBits>(hn::BitCast(di, sum)));
  }
  HWY_INLINE Vec<T> scale(Vec<T> y) const { return hn::Mul(y, power); }

  // x as the constructor needs it: an exponent that exists, or NaN.
  HWY_INLINE static Vec<T> bounded(Vec<T> x) { return larger(hn::Set(Tag<T>(), -kBias), x); }
  // x − n of an x that was bounded: its polynomial must be a number, which 2^n = 0 can make 0.
  HWY_INLINE static Vec<T> bounded_fraction(Vec<T> f) { return larger(hn::Set(Tag<T>(), T{-1}), f); }
#endif
};

#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
// 2^x for float where one instruction reads a table of 16 numbers and another scales by a power of two: x = n + k/16 + f, and
// 2^f − 1 needs three terms for a relative error of 1.1e-7. (Tang, "Table-driven implementation of the exponential function
// in IEEE floating-point arithmetic", 1989) What is added to round x to sixteenths leaves 16 n + k in the lowest bits of the
// sum. scalef makes 0 of everything at n = −∞, where f is no number.
HWY_INLINE Vec<float> exp2_by_table(Vec<float> x) {
  // 2^(k/16)
  alignas(64) static constexpr float kPowers[16] = {
      1,           1.04427378f, 1.09050773f, 1.13878863f, 1.18920712f, 1.24185781f, 1.29683955f, 1.35425555f,
      1.41421356f, 1.47682615f, 1.54221083f, 1.61049033f, 1.68179283f, 1.75625216f, 1.83400809f, 1.91520656f};
  const Tag<float> d;
  const auto magic = hn::Set(d, 1.5f * (1 << 19)), sum = hn::Add(x, magic), rounded = hn::Sub(sum, magic);
  const Vec<float> power{
      _mm512_maskz_permutexvar_ps(0xFFFF, _mm512_castps_si512(sum.raw), _mm512_load_ps(kPowers))};
  const auto f = hn::Sub(x, rounded);
  auto p = hn::MulAdd(hn::Set(d, .05550411f), f, hn::Set(d, .24022651f));
  p = hn::Mul(hn::MulAdd(p, f, hn::Set(d, .69314718f)), f);
  return Vec<float>{_mm512_maskz_scalef_ps(0xFFFF, hn::MulAdd(power, p, power).raw, rounded.raw)};
}
#endif

// 2^(c x + a), where that is below the largest number of T. 0 where it is less than any number, so 2^−∞ = 0. NaN stays NaN.
// The sum is rounded once: if a compiler fused a product into what follows, x − n could be the rounding of a huge x.
template <class T>
HWY_INLINE Vec<T> exp2(Vec<T> x, Vec<T> c, Vec<T> a) {
  const auto sum = PowerOfTwo<T>::bounded(hn::MulAdd(x, c, a));
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  if constexpr (std::is_same_v<T, float>) return exp2_by_table(sum);
#endif
  const PowerOfTwo<T> power(sum);
  return power.scale(exp2_fraction<T>(hn::Sub(sum, power.n)));
}

// 2^(c x + a + b) for an a as large as c x and a b that is smaller than a's rounding. The sum is rounded
// where it is small, after its integer was taken away: its rounding is a relative error of the power.
template <class T>
HWY_INLINE Vec<T> exp2_of_sum(Vec<T> x, Vec<T> c, Vec<T> a, Vec<T> b) {
  const PowerOfTwo<T> power(PowerOfTwo<T>::bounded(hn::MulAdd(x, c, a)));
  const auto f = hn::Add(hn::MulAdd(x, c, hn::Sub(a, power.n)), b);
  return power.scale(exp2_fraction<T>(PowerOfTwo<T>::bounded_fraction(f)));
}

// ln 2 = high + low, where n · high is not rounded for the exponent n of any number.
template <class T>
struct Ln2 {
  static constexpr long double kExact = 0.693147180559945309417232121458L;
  static constexpr std::int64_t kUnit = std::int64_t{1} << (sizeof(T) == 4 ? 9 : 32);
  static constexpr T kHigh =
      static_cast<T>(static_cast<std::int64_t>(kExact * kUnit + 0.5L)) / static_cast<T>(kUnit);
  static constexpr T kLow = static_cast<T>(kExact - static_cast<long double>(kHigh));
};

// e^x: 0 where that is below the least normal number of T, ∞ at the latest where it is above the largest, and from .7 of
// it on at the earliest. NaN stays NaN.
// e^x = 2^n e^r with r = x − n ln 2, which is small and precise. (Cody and Waite, 1980)
template <class V>
HWY_INLINE V exp(V x) {
  using T = hn::TFromV<V>;
  using Power = PowerOfTwo<T>;
  const Tag<T> d;
  constexpr T kInfinite = std::numeric_limits<T>::max_exponent;
  const auto log2e = hn::Set(d, static_cast<T>(1 / Ln2<T>::kExact));
  const Power power(Power::bounded(smaller(hn::Set(d, kInfinite), hn::Mul(x, log2e))));
  const auto high = hn::NegMulAdd(power.n, hn::Set(d, Ln2<T>::kHigh), x);
  const auto r = hn::NegMulAdd(power.n, hn::Set(d, Ln2<T>::kLow), high);
  return power.scale(exp2_fraction<T>(Power::bounded_fraction(hn::Mul(r, log2e))));
}

// 1 / (1 + e^−x)
template <class V>
HWY_INLINE V sigmoid(V x) {
  const auto one = hn::Set(hn::DFromV<V>(), hn::TFromV<V>(1));
  return hn::Div(one, hn::Add(one, exp(hn::Neg(x))));
}

// Highway's Tanh turns inf and NaN into something else.
template <class T>
HWY_INLINE Vec<T> tanh(Vec<T> x) {
  const Tag<T> d;
  const auto bound = hn::Set(d, T{20});
  const auto y = hn::Tanh(d, hn::Max(hn::Min(x, bound), hn::Neg(bound)));
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
