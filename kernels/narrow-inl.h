// Rows of 16-bit numbers to floats and back. For one SIMD target.
#if defined(TILEGRAD_KERNELS_NARROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_NARROW_INL_H_
#undef TILEGRAD_KERNELS_NARROW_INL_H_
#else
#define TILEGRAD_KERNELS_NARROW_INL_H_
#endif

#include <limits>

#include "tilegrad/kernels/narrow.h"
#include "tilegrad/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

// Whether the processor converts f16 by an instruction. Elsewhere Highway's conversions truncate, and make a finite number
// of Inf, so the functions of narrow.h take their place, as they do for bf16: compilers find the vectors by themselves.
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2 && !defined(HWY_DISABLE_F16C)
inline constexpr bool kConvertsHalves = true;
#else
inline constexpr bool kConvertsHalves = false;
#endif

// A vector of floats from as many numbers in f16.
template <class D>
HWY_INLINE hn::Vec<D> load_halves(D d, const f16* x) {
  const hn::Rebind<hwy::float16_t, D> halves;
  const hn::Rebind<std::uint16_t, D> bits;
  return hn::PromoteTo(d, hn::BitCast(halves, hn::LoadU(bits, &x->bits)));
}
template <class D>
HWY_INLINE void store_halves(D, f16* y, hn::Vec<D> x) {
  const hn::Rebind<hwy::float16_t, D> halves;
  const hn::Rebind<std::uint16_t, D> bits;
  hn::StoreU(hn::BitCast(bits, hn::DemoteTo(halves, x)), bits, &y->bits);
}

// y = x for n numbers.
template <class S>
HWY_INLINE void widen_row(float* y, const S* x, Index n) {
  Index i = 0;
  if constexpr (kConvertsHalves && std::is_same_v<S, f16>) {
    const Tag<float> d;
    const auto width = static_cast<Index>(hn::Lanes(d));
    for (; i + width <= n; i += width) hn::StoreU(load_halves(d, x + i), d, y + i);
  }
  for (; i < n; ++i) y[i] = widen(x[i]);
}

// y = or += x for n numbers, rounded.
template <class S>
HWY_INLINE void narrow_row(S* y, Write write, const float* x, Index n) {
  const bool adds = write == Write::accumulate;
  Narrowing<S> narrowed;
  Index i = 0;
  if constexpr (kConvertsHalves && std::is_same_v<S, f16>) {
    const Tag<float> d;
    const auto width = static_cast<Index>(hn::Lanes(d));
    const auto first_too_large = hn::Set(d, 65520.0F),
               largest = hn::Set(d, std::numeric_limits<float>::max());
    for (; i + width <= n; i += width) {
      auto v = hn::LoadU(d, x + i);
      if (adds) v = hn::Add(load_halves(d, y + i), v);
      const auto size = hn::Abs(v);
      const auto overflows = hn::And(hn::Ge(size, first_too_large), hn::Le(size, largest));
      narrowed.add_overflows(static_cast<Index>(hn::CountTrue(d, overflows)));
      store_halves(d, y + i, v);
    }
  }
  for (; i < n; ++i) y[i] = narrowed(adds ? widen(y[i]) + x[i] : x[i]);
}

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
