// Loops over vectors, for the kernels that are compiled once for every SIMD target. Included again for each
// of them, hence no #pragma once but the guard that Highway asks for.
#if defined(TILEGRAD_KERNELS_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_SIMD_INL_H_
#undef TILEGRAD_KERNELS_SIMD_INL_H_
#else
#define TILEGRAD_KERNELS_SIMD_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <limits>

#include "tilegrad/kernels/views.h"

// A file of kernels describes what each SIMD target provides by a struct of function pointers, Table<T>. In
// its per-target part it fills a `kTable<T>` and writes TILEGRAD_TARGET_TABLE(Table); in its HWY_ONCE part
// TILEGRAD_BEST_TABLE(Table) then defines best<T>(), the table of the best target that this processor runs,
// for float and double.
#undef TILEGRAD_TARGET_TABLE
#define TILEGRAD_TARGET_TABLE(Table)                         \
  const Table<float>* table_f32() { return &kTable<float>; } \
  const Table<double>* table_f64() { return &kTable<double>; }

#undef TILEGRAD_BEST_TABLE
#define TILEGRAD_BEST_TABLE(Table)               \
  HWY_EXPORT(table_f32);                         \
  HWY_EXPORT(table_f64);                         \
  template <class T>                             \
  const Table<T>& best() {                       \
    if constexpr (sizeof(T) == sizeof(float)) {  \
      return *HWY_DYNAMIC_DISPATCH(table_f32)(); \
    } else {                                     \
      return *HWY_DYNAMIC_DISPATCH(table_f64)(); \
    }                                            \
  }

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class T>
using Tag = hn::ScalableTag<T>;
template <class T>
using Vec = hn::Vec<Tag<T>>;

// The first n elements of x, and 0 in the remaining lanes.
template <class T>
HWY_INLINE Vec<T> load_tail(const T* x, Index n) {
  const Tag<T> d;
  HWY_ALIGN T lanes[HWY_MAX_BYTES / sizeof(T)] = {};
  std::copy(x, x + n, lanes);
  return hn::Load(d, lanes);
}

// y_i = f(x_i, ...) for i < n. y may be one of the inputs.
template <class T, class F, class... X>
HWY_INLINE void map(T* y, Index n, F&& f, const X*... xs) {
  const Tag<T> d;
  const auto width = static_cast<Index>(hn::Lanes(d));
  Index i = 0;
  for (; i + width <= n; i += width) hn::StoreU(f(hn::LoadU(d, xs + i)...), d, y + i);
  if (i == n) return;
  HWY_ALIGN T lanes[HWY_MAX_BYTES / sizeof(T)];
  hn::Store(f(load_tail(xs + i, n - i)...), d, lanes);
  std::copy(lanes, lanes + (n - i), y + i);
}

// dx_i = f(x_i, ...) or dx_i += f(x_i, ...).
template <class T, class F, class... X>
HWY_INLINE void map_into(T* dx, Write write, Index n, F&& f, const X*... xs) {
  if (write == Write::overwrite) {
    map(dx, n, f, xs...);
  } else {
    map(
        dx, n, [&](auto old, auto... v) { return hn::Add(old, f(v...)); }, static_cast<const T*>(dx), xs...);
  }
}

// A sum over i, in an order that depends on n and the vector width alone; f(sum, x_i, ...) adds one term.
// Four partial sums hide the latency of an addition: it takes four cycles, and one can start in each.
template <class F, class T, class... X>
HWY_INLINE T fold(Index n, F&& f, const T* x, const X*... xs) {
  const Tag<T> d;
  const auto width = static_cast<Index>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  Index i = 0;
  for (; i + 4 * width <= n; i += 4 * width) {
    s0 = f(s0, hn::LoadU(d, x + i), hn::LoadU(d, xs + i)...);
    s1 = f(s1, hn::LoadU(d, x + i + width), hn::LoadU(d, xs + i + width)...);
    s2 = f(s2, hn::LoadU(d, x + i + 2 * width), hn::LoadU(d, xs + i + 2 * width)...);
    s3 = f(s3, hn::LoadU(d, x + i + 3 * width), hn::LoadU(d, xs + i + 3 * width)...);
  }
  for (; i + width <= n; i += width) s0 = f(s0, hn::LoadU(d, x + i), hn::LoadU(d, xs + i)...);
  if (i < n) {
    const auto inside = hn::FirstN(d, static_cast<std::size_t>(n - i));
    s1 = hn::IfThenElse(inside, f(s1, load_tail(x + i, n - i), load_tail(xs + i, n - i)...), s1);
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
}

// Σ_i f(x_i, ...).
template <class F, class T, class... X>
HWY_INLINE T reduce(Index n, F&& f, const T* x, const X*... xs) {
  return fold(
      n, [&](auto sum, auto... v) HWY_ATTR { return hn::Add(sum, f(v...)); }, x, xs...);
}

// Σ_i x_i y_i.
template <class T>
HWY_INLINE T dot(Index n, const T* x, const T* y) {
  return fold(
      n, [](auto sum, auto a, auto b) HWY_ATTR { return hn::MulAdd(a, b, sum); }, x, y);
}

// Σ_i x_i.
template <class T>
HWY_INLINE T sum(Index n, const T* x) {
  return reduce(
      n, [](auto v) { return v; }, x);
}

// max(x, m) as x86 defines it: a NaN in m stays, one in x does not. In Highway's plain C++ neither stays.
template <class V>
HWY_INLINE V larger(V x, V m) {
  if constexpr (HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128) {
    return hn::IfThenElse(hn::Gt(x, m), x, m);
  } else {
    return hn::Max(x, m);
  }
}

// min(x, m), in the same way.
template <class V>
HWY_INLINE V smaller(V x, V m) {
  if constexpr (HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128) {
    return hn::IfThenElse(hn::Lt(x, m), x, m);
  } else {
    return hn::Min(x, m);
  }
}

// The largest lane. Highway's plain C++, as clang compiles it, begins at the lowest finite number, and so misses −inf.
template <class D>
HWY_INLINE hn::TFromD<D> max_of_lanes(D d, hn::Vec<D> v) {
  using T = hn::TFromD<D>;
  constexpr T kNothing = -std::numeric_limits<T>::infinity();
  const T max = hn::GetLane(hn::MaxOfLanes(d, v));
  const bool misses =
      max == std::numeric_limits<T>::lowest() && hn::AllTrue(d, hn::Eq(v, hn::Set(d, kNothing)));
  return misses ? kNothing : max;
}

// max_i x_i, −inf if n is 0.
template <class T>
HWY_INLINE T reduce_max(Index n, const T* x) {
  const Tag<T> d;
  const auto width = static_cast<Index>(hn::Lanes(d));
  const auto lowest = hn::Set(d, -std::numeric_limits<T>::infinity());
  auto m = lowest;
  Index i = 0;
  for (; i + width <= n; i += width) m = hn::Max(m, hn::LoadU(d, x + i));
  if (i < n) {
    const auto inside = hn::FirstN(d, static_cast<std::size_t>(n - i));
    m = hn::Max(m, hn::IfThenElse(inside, load_tail(x + i, n - i), lowest));
  }
  return max_of_lanes(d, m);
}

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
