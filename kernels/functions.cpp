#include "tilegrad/kernels/functions.h"

#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

namespace {

constexpr Index kGrain = 8192;  // at one exponential per element, worth waking a thread

// y_i = f(i).
template <class T, class F>
void fill_with(std::span<T> y, F&& f) {
  parallel_for(std::ssize(y), kGrain, [p = y.data(), &f](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) p[i] = f(i);
  });
}

// dx_i (+)= f(i); nothing if nobody needs it.
template <class T, class F>
void add_into(Grad<std::span<T>> dx, F&& f) {
  if (dx.write == Write::overwrite) {
    fill_with(dx.to, f);
  } else {
    fill_with(dx.to, [p = dx.to.data(), &f](Index i) { return p[i] + f(i); });
  }
}

}  // namespace

template <class T, class F>
void apply(std::span<T> y, std::span<const T> x, const F& f) {
  fill_with(y, [&](Index i) { return f.value(x[i]); });
}

template <class T, class F>
void apply_backward(Grad<std::span<T>> dx, std::span<const T> dy, std::span<const T> kept, const F& f) {
  add_into(dx, [&](Index i) { return dy[i] * f.slope(kept[i]); });
}

template <class T, class F>
void apply(std::span<T> y, std::span<const T> a, std::span<const T> b, const F& f) {
  fill_with(y, [&](Index i) { return f.value(a[i], b[i]); });
}

template <class T, class F>
void apply_backward(Grad<std::span<T>> da, Grad<std::span<T>> db, std::span<const T> dy, std::span<const T> a,
                    std::span<const T> b, const F& f) {
  add_into(da, [&](Index i) { return dy[i] * f.slope_a(a[i], b[i]); });
  add_into(db, [&](Index i) { return dy[i] * f.slope_b(a[i], b[i]); });
}

template <class T>
void shift(std::span<T> y, std::span<const T> x, T s) {
  fill_with(y, [&](Index i) { return x[i] + s; });
}

template <class T>
void where(std::span<T> y, std::span<const std::uint8_t> condition, std::span<const T> a,
           std::span<const T> b) {
  fill_with(y, [&](Index i) { return condition[i] != 0 ? a[i] : b[i]; });
}

template <class T>
void where_backward(Grad<std::span<T>> dx, std::span<const T> dy, std::span<const std::uint8_t> condition,
                    bool chosen) {
  add_into(dx, [&](Index i) { return (condition[i] != 0) == chosen ? dy[i] : T{0}; });
}

#define TILEGRAD_FUNCTION(T, F)                                          \
  template void apply<T, F>(std::span<T>, std::span<const T>, const F&); \
  template void apply_backward<T, F>(Grad<std::span<T>>, std::span<const T>, std::span<const T>, const F&);
#define TILEGRAD_PAIR(T, F)                                                                      \
  template void apply<T, F>(std::span<T>, std::span<const T>, std::span<const T>, const F&);     \
  template void apply_backward<T, F>(Grad<std::span<T>>, Grad<std::span<T>>, std::span<const T>, \
                                     std::span<const T>, std::span<const T>, const F&);
#define TILEGRAD_INSTANTIATE(T)                                                                          \
  TILEGRAD_FUNCTION(T, Exp)                                                                              \
  TILEGRAD_FUNCTION(T, Log)                                                                              \
  TILEGRAD_FUNCTION(T, Tanh)                                                                             \
  TILEGRAD_FUNCTION(T, Sigmoid)                                                                          \
  TILEGRAD_FUNCTION(T, Abs)                                                                              \
  TILEGRAD_FUNCTION(T, Sqrt)                                                                             \
  TILEGRAD_FUNCTION(T, Pow)                                                                              \
  TILEGRAD_FUNCTION(T, Clamp)                                                                            \
  TILEGRAD_FUNCTION(T, Quotient)                                                                         \
  TILEGRAD_PAIR(T, Div)                                                                                  \
  TILEGRAD_PAIR(T, Maximum)                                                                              \
  TILEGRAD_PAIR(T, Minimum)                                                                              \
  template void shift<T>(std::span<T>, std::span<const T>, T);                                           \
  template void where<T>(std::span<T>, std::span<const std::uint8_t>, std::span<const T>,                \
                         std::span<const T>);                                                            \
  template void where_backward<T>(Grad<std::span<T>>, std::span<const T>, std::span<const std::uint8_t>, \
                                  bool);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE
#undef TILEGRAD_PAIR
#undef TILEGRAD_FUNCTION

}  // namespace tilegrad::kernels
