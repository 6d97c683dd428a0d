#include "tilegrad/kernels/attention/row_ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/attention/row_ops.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/attention/masked_products-inl.h"
#include "tilegrad/kernels/exp-inl.h"

#ifndef TILEGRAD_KERNELS_ROWS_TABLE  // this file is compiled once for every SIMD target
#define TILEGRAD_KERNELS_ROWS_TABLE
namespace tilegrad::kernels {

template <class T>
struct RowsTable {
  T (*max)(Index n, const T* x);
  T (*exp)(T* y, Index n, const T* x, T shift);
  T (*dot)(Index n, const T* a, const T* b);
  void (*scale)(T* y, Index n, T s);
  bool (*is_finite)(Index n, const T* x);
};

}  // namespace tilegrad::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

template <class T>
T max_of(Index n, const T* x) {
  return reduce_max(n, x);
}

template <class T>
T exp_of(T* y, Index n, const T* x, T shift) {
  const auto s = hn::Set(Tag<T>(), shift);
  map(
      y, n, [&](auto v) { return exp(hn::Sub(v, s)); }, x);
  return sum(n, static_cast<const T*>(y));
}

template <class T>
T dot_of(Index n, const T* a, const T* b) {
  return dot(n, a, b);
}

template <class T>
void scale_of(T* y, Index n, T s) {
  const auto factor = hn::Set(Tag<T>(), s);
  map(
      y, n, [&](auto v) { return hn::Mul(v, factor); }, static_cast<const T*>(y));
}

template <class T>
bool is_finite_of(Index n, const T* x) {
  return all_finite(Mat<const T>(x, 1, n));
}

template <class T>
constexpr RowsTable<T> kTable = {
    .max = max_of<T>, .exp = exp_of<T>, .dot = dot_of<T>, .scale = scale_of<T>, .is_finite = is_finite_of<T>};
TILEGRAD_TARGET_TABLE(RowsTable)

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels {

namespace {

TILEGRAD_BEST_TABLE(RowsTable)

}  // namespace

template <class T>
T row_max(Index n, const T* x) {
  return best<T>().max(n, x);
}
template <class T>
T row_exp(T* y, Index n, const T* x, T shift) {
  return best<T>().exp(y, n, x, shift);
}
template <class T>
T row_dot(Index n, const T* a, const T* b) {
  return best<T>().dot(n, a, b);
}
template <class T>
void row_scale(T* y, Index n, T s) {
  best<T>().scale(y, n, s);
}
template <class T>
bool row_is_finite(Index n, const T* x) {
  return best<T>().is_finite(n, x);
}

template float row_max<float>(Index, const float*);
template double row_max<double>(Index, const double*);
template float row_exp<float>(float*, Index, const float*, float);
template double row_exp<double>(double*, Index, const double*, double);
template float row_dot<float>(Index, const float*, const float*);
template double row_dot<double>(Index, const double*, const double*);
template void row_scale<float>(float*, Index, float);
template void row_scale<double>(double*, Index, double);
template bool row_is_finite<float>(Index, const float*);
template bool row_is_finite<double>(Index, const double*);

}  // namespace tilegrad::kernels
#endif  // HWY_ONCE
