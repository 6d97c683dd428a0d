// How the rule of masked_products.h finds out, for one SIMD target.
#if defined(TILEGRAD_KERNELS_ATTENTION_MASKED_PRODUCTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_ATTENTION_MASKED_PRODUCTS_INL_H_
#undef TILEGRAD_KERNELS_ATTENTION_MASKED_PRODUCTS_INL_H_
#else
#define TILEGRAD_KERNELS_ATTENTION_MASKED_PRODUCTS_INL_H_
#endif

#include "tilegrad/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

// Whether x holds neither NaN nor Inf.
template <class T>
HWY_NOINLINE HWY_ATTR bool all_finite(Mat<const T> x) {
  const Tag<T> d;
  const auto width = static_cast<Index>(hn::Lanes(d));
  auto zeros0 = hn::Zero(d), zeros1 = hn::Zero(d);  // 0 · x is NaN unless x is finite
  for (Index r = 0; r < x.rows; ++r) {
    const T* row = x.row(r);
    Index c = 0;
    for (; c + 2 * width <= x.cols; c += 2 * width) {
      zeros0 = hn::MulAdd(hn::LoadU(d, row + c), hn::Zero(d), zeros0);
      zeros1 = hn::MulAdd(hn::LoadU(d, row + c + width), hn::Zero(d), zeros1);
    }
    for (; c + width <= x.cols; c += width) zeros0 = hn::MulAdd(hn::LoadU(d, row + c), hn::Zero(d), zeros0);
    if (c < x.cols) zeros1 = hn::MulAdd(load_tail(row + c, x.cols - c), hn::Zero(d), zeros1);
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(zeros0, zeros1))) == 0;
}

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
