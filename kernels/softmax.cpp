#include "tilegrad/kernels/softmax.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "tilegrad/kernels/parallel.h"

#ifndef TILEGRAD_KERNELS_SOFTMAX_TABLE  // this file is compiled once for every SIMD target
#define TILEGRAD_KERNELS_SOFTMAX_TABLE
namespace tilegrad::kernels {

// log Σ_j exp(x_j) of a row, kept as two numbers whose sum it is: next to a logit of 1e8, a float has no
// digits left for log_sum.
template <class T>
struct LogSumExp {
  T max;
  T log_sum;  // log Σ_j exp(x_j − max)
};

// What each SIMD target provides: one row.
template <class T>
struct SoftmaxTable {
  void (*softmax)(T* y, Index n, const T* x);
  void (*softmax_backward)(T* dx, Write write, Index n, const T* dy, const T* y);
  LogSumExp<T> (*log_sum_exp)(Index n, const T* x);
  void (*softmax_from_lse)(T* dx, Write write, Index n, const T* x, LogSumExp<T> lse, T s);
};

}  // namespace tilegrad::kernels
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/softmax.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

template <class T>
void softmax(T* y, Index n, const T* x) {
  const Tag<T> d;
  const auto max = hn::Set(d, reduce_max(n, x));
  map(
      y, n, [&](auto v) { return exp(hn::Sub(v, max)); }, x);
  const auto inverse = hn::Set(d, T(1) / sum(n, static_cast<const T*>(y)));
  map(
      y, n, [&](auto v) { return hn::Mul(v, inverse); }, static_cast<const T*>(y));
}

template <class T>
void softmax_backward(T* dx, Write write, Index n, const T* dy, const T* y) {
  // forward: y = e^x / Σ e^x.  dy_i/dx_j = y_i ([i = j] − y_j), so dx = y ⊙ (dy − ⟨y, dy⟩).
  const auto product = [](auto g, auto v) { return hn::Mul(g, v); };
  const auto dot = hn::Set(Tag<T>(), reduce(n, product, dy, y));
  map_into(
      dx, write, n, [&](auto g, auto v) { return hn::Mul(v, hn::Sub(g, dot)); }, dy, y);
}

template <class T>
LogSumExp<T> log_sum_exp(Index n, const T* x) {
  const T max = reduce_max(n, x);
  const auto m = hn::Set(Tag<T>(), max);
  const auto shifted = [&](auto v) { return exp(hn::Sub(v, m)); };
  return {max, std::log(reduce(n, shifted, x))};
}

// dx (+)= s softmax(x)
template <class T>
void softmax_from_lse(T* dx, Write write, Index n, const T* x, LogSumExp<T> lse, T s) {
  const Tag<T> d;
  const auto m = hn::Set(d, lse.max), l = hn::Set(d, lse.log_sum), factor = hn::Set(d, s);
  const auto step = [&](auto v) { return hn::Mul(factor, exp(hn::Sub(hn::Sub(v, m), l))); };
  map_into(dx, write, n, step, x);
}

template <class T>
constexpr SoftmaxTable<T> kTable = {.softmax = softmax<T>,
                                    .softmax_backward = softmax_backward<T>,
                                    .log_sum_exp = log_sum_exp<T>,
                                    .softmax_from_lse = softmax_from_lse<T>};
TILEGRAD_TARGET_TABLE(SoftmaxTable)

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels {

namespace {

TILEGRAD_BEST_TABLE(SoftmaxTable)

// f(i) for every row, in parallel pieces of rows.
template <class F>
void for_each_row(Index rows, Index cols, F&& f) {
  constexpr Index kGrain = 8192;
  parallel_for(rows, std::max<Index>(1, kGrain / std::max<Index>(1, cols)), [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) f(i);
  });
}

}  // namespace

template <class T>
void softmax(Mat<T> y, Mat<const T> x) {
  for_each_row(y.rows, y.cols, [&](Index i) { best<T>().softmax(y.row(i), y.cols, x.row(i)); });
}

template <class T>
void softmax_backward(Grad<Mat<T>> dx, Mat<const T> dy, Mat<const T> y) {
  for_each_row(y.rows, y.cols, [&](Index i) {
    best<T>().softmax_backward(dx.to.row(i), dx.write, y.cols, dy.row(i), y.row(i));
  });
}

template <class T>
double cross_entropy(std::span<T> max, std::span<T> log_sum, Mat<const T> logits,
                     std::span<const std::int32_t> targets, std::int32_t ignored) {
  for_each_row(logits.rows, logits.cols, [&](Index i) {
    const LogSumExp<T> lse = best<T>().log_sum_exp(logits.cols, logits.row(i));
    max[i] = lse.max;
    log_sum[i] = lse.log_sum;
  });
  double total = 0;
  for (Index i = 0; i < logits.rows; ++i) {
    if (targets[i] == ignored) continue;
    const double below_max = static_cast<double>(max[i]) - static_cast<double>(logits(i, targets[i]));
    total += below_max + static_cast<double>(log_sum[i]);
  }
  return total;
}

template <class T>
void cross_entropy_backward(Grad<Mat<T>> dlogits, T s, Mat<const T> logits, std::span<const T> max,
                            std::span<const T> log_sum, std::span<const std::int32_t> targets,
                            std::int32_t ignored) {
  for_each_row(logits.rows, logits.cols, [&](Index i) {
    if (targets[i] == ignored) {
      if (dlogits.write == Write::overwrite) std::fill_n(dlogits.to.row(i), logits.cols, T{0});
      return;
    }
    // forward: loss_i = lse_i − logits[i, target], and the gradient of lse_i is the softmax
    best<T>().softmax_from_lse(dlogits.to.row(i), dlogits.write, logits.cols, logits.row(i),
                               {max[i], log_sum[i]}, s);
    dlogits.to(i, targets[i]) -= s;
  });
}

#define TILEGRAD_INSTANTIATE(T)                                                                             \
  template void softmax<T>(Mat<T>, Mat<const T>);                                                           \
  template void softmax_backward<T>(Grad<Mat<T>>, Mat<const T>, Mat<const T>);                              \
  template double cross_entropy<T>(std::span<T>, std::span<T>, Mat<const T>, std::span<const std::int32_t>, \
                                   std::int32_t);                                                           \
  template void cross_entropy_backward<T>(Grad<Mat<T>>, T, Mat<const T>, std::span<const T>,                \
                                          std::span<const T>, std::span<const std::int32_t>, std::int32_t);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels
#endif  // HWY_ONCE
