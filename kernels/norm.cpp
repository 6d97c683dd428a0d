#include "tilegrad/kernels/norm.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tilegrad/base/memory.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/kernels/row_sums.h"

#ifndef TILEGRAD_KERNELS_NORM_TABLE  // this file is compiled once for every SIMD target
#define TILEGRAD_KERNELS_NORM_TABLE
namespace tilegrad::kernels {

// One row's statistics; mean is 0 for rmsnorm.
template <class T>
struct RowStatistics {
  T mean;
  T rstd;
};

// What each SIMD target provides: one row.
template <class T>
struct NormTable {
  RowStatistics<T> (*layernorm)(T* y, Index n, const T* x, const T* weight, const T* bias, T eps);
  RowStatistics<T> (*rmsnorm)(T* y, Index n, const T* x, const T* weight, T eps);
  void (*layernorm_dx)(T* dx, Write write, Index n, const T* dy, const T* x, const T* weight,
                       RowStatistics<T> s);
  void (*rmsnorm_dx)(T* dx, Write write, Index n, const T* dy, const T* x, const T* weight,
                     RowStatistics<T> s);
  void (*add_dweight)(T* dweight, Index n, const T* dy, const T* x, RowStatistics<T> s);
  void (*add)(T* sum, Index n, const T* x);
};

}  // namespace tilegrad::kernels
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/norm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

// 1/√(mean_j((x_j − mean)²) + eps). Where a square overflows (from 1e19 on in float), everything is scaled
// down first, by a power of two, which rounds nothing.
template <class T>
T inverse_spread(Index n, const T* x, T mean, T eps) {
  const Tag<T> d;
  const auto m = hn::Set(d, mean);
  const auto mean_square = [&](T scale) {
    const auto s = hn::Set(d, scale);
    const auto square = [&](auto v) {
      const auto c = hn::Mul(hn::Sub(v, m), s);
      return hn::Mul(c, c);
    };
    return reduce(n, square, x) / static_cast<T>(n);
  };
  const T plain = mean_square(T(1));
  if (plain <= std::numeric_limits<T>::max()) return T(1) / std::sqrt(plain + eps);
  const T down = std::ldexp(T(1), sizeof(T) == 4 ? -100 : -600);
  return down / std::sqrt(mean_square(down) + eps * down * down);
}

template <class T>
RowStatistics<T> layernorm(T* y, Index n, const T* x, const T* weight, const T* bias, T eps) {
  const Tag<T> d;
  const T mean = sum(n, x) / static_cast<T>(n);
  const auto m = hn::Set(d, mean);
  const T rstd = inverse_spread(n, x, mean, eps);
  const auto r = hn::Set(d, rstd);
  map(
      y, n, [&](auto v, auto w, auto b) { return hn::MulAdd(hn::Mul(hn::Sub(v, m), r), w, b); }, x, weight,
      bias);
  return {mean, rstd};
}

template <class T>
RowStatistics<T> rmsnorm(T* y, Index n, const T* x, const T* weight, T eps) {
  const T rstd = inverse_spread(n, x, T(0), eps);
  const auto r = hn::Set(Tag<T>(), rstd);
  map(
      y, n, [&](auto v, auto w) { return hn::Mul(hn::Mul(v, r), w); }, x, weight);
  return {T(0), rstd};
}

// forward: n = (x − mean) rstd, y = n ⊙ weight + bias. With g = dy ⊙ weight,
//   dx = rstd (g − mean_j(g) − n mean_j(g ⊙ n)):
// what g does along the constant vector and along n is undone by the mean and by the variance.
template <class T>
void layernorm_dx(T* dx, Write write, Index n, const T* dy, const T* x, const T* weight, RowStatistics<T> s) {
  const Tag<T> d;
  const auto m = hn::Set(d, s.mean), r = hn::Set(d, s.rstd);
  const auto along_n = [&](auto g, auto v, auto w) {
    return hn::Mul(hn::Mul(g, w), hn::Mul(hn::Sub(v, m), r));
  };
  const T count = static_cast<T>(n);
  const auto weighted = [](auto g, auto w) { return hn::Mul(g, w); };
  const auto mean_g = hn::Set(d, reduce(n, weighted, dy, weight) / count);
  const auto mean_gn = hn::Set(d, reduce(n, along_n, dy, x, weight) / count);
  const auto step = [&](auto g, auto v, auto w) {
    const auto normalised = hn::Mul(hn::Sub(v, m), r);
    return hn::Mul(r, hn::NegMulAdd(normalised, mean_gn, hn::Sub(hn::Mul(g, w), mean_g)));
  };
  map_into(dx, write, n, step, dy, x, weight);
}

// forward: n = x rstd, y = n ⊙ weight. As above, without the mean.
template <class T>
void rmsnorm_dx(T* dx, Write write, Index n, const T* dy, const T* x, const T* weight, RowStatistics<T> s) {
  const Tag<T> d;
  const auto r = hn::Set(d, s.rstd);
  const auto along_n = [&](auto g, auto v, auto w) { return hn::Mul(hn::Mul(g, w), hn::Mul(v, r)); };
  const auto mean_gn = hn::Set(d, reduce(n, along_n, dy, x, weight) / static_cast<T>(n));
  const auto step = [&](auto g, auto v, auto w) {
    return hn::Mul(r, hn::NegMulAdd(hn::Mul(v, r), mean_gn, hn::Mul(g, w)));
  };
  map_into(dx, write, n, step, dy, x, weight);
}

// dweight += dy ⊙ n
template <class T>
void add_dweight(T* dweight, Index n, const T* dy, const T* x, RowStatistics<T> s) {
  const Tag<T> d;
  const auto m = hn::Set(d, s.mean), r = hn::Set(d, s.rstd);
  const auto step = [&](auto g, auto v) { return hn::Mul(g, hn::Mul(hn::Sub(v, m), r)); };
  map_into(dweight, Write::accumulate, n, step, dy, x);
}

template <class T>
void add(T* sum, Index n, const T* x) {
  map_into(
      sum, Write::accumulate, n, [](auto v) { return v; }, x);
}

template <class T>
constexpr NormTable<T> kTable = {.layernorm = layernorm<T>,
                                 .rmsnorm = rmsnorm<T>,
                                 .layernorm_dx = layernorm_dx<T>,
                                 .rmsnorm_dx = rmsnorm_dx<T>,
                                 .add_dweight = add_dweight<T>,
                                 .add = add<T>};
TILEGRAD_TARGET_TABLE(NormTable)

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels {

namespace {

TILEGRAD_BEST_TABLE(NormTable)

}  // namespace

template <class T>
void layernorm(Mat<T> y, std::span<T> mean, std::span<T> rstd, Mat<const T> x, std::span<const T> weight,
               std::span<const T> bias, double eps) {
  parallel_for(y.rows, rows_per_piece(y.rows, y.cols), [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const auto row =
          best<T>().layernorm(y.row(i), y.cols, x.row(i), weight.data(), bias.data(), static_cast<T>(eps));
      mean[i] = row.mean;
      rstd[i] = row.rstd;
    }
  });
}

template <class T>
void layernorm_backward(const LayerNormGrads<T>& grads, Mat<const T> dy, Mat<const T> x,
                        std::span<const T> weight, std::span<const T> mean, std::span<const T> rstd) {
  const auto& simd = best<T>();
  const auto row = [&](Index i, T* dweight) {
    const RowStatistics<T> s = {mean[i], rstd[i]};
    if (grads.dx) {
      simd.layernorm_dx(grads.dx.to.row(i), grads.dx.write, x.cols, dy.row(i), x.row(i), weight.data(), s);
    }
    if (dweight != nullptr) simd.add_dweight(dweight, x.cols, dy.row(i), x.row(i), s);
  };
  if (grads.dx || grads.dweight) sum_over_rows<T>(x.rows, x.cols, grads.dweight, row);
  if (grads.dbias) {
    sum_over_rows<T>(x.rows, x.cols, grads.dbias,
                     [&](Index i, T* dbias) { simd.add(dbias, x.cols, dy.row(i)); });
  }
}

template <class T>
void rmsnorm(Mat<T> y, std::span<T> rstd, Mat<const T> x, std::span<const T> weight, double eps) {
  parallel_for(y.rows, rows_per_piece(y.rows, y.cols), [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      rstd[i] = best<T>().rmsnorm(y.row(i), y.cols, x.row(i), weight.data(), static_cast<T>(eps)).rstd;
    }
  });
}

template <class T>
void rmsnorm_backward(const RmsNormGrads<T>& grads, Mat<const T> dy, Mat<const T> x,
                      std::span<const T> weight, std::span<const T> rstd) {
  const auto& simd = best<T>();
  const auto row = [&](Index i, T* dweight) {
    const RowStatistics<T> s = {T{0}, rstd[i]};
    if (grads.dx) {
      simd.rmsnorm_dx(grads.dx.to.row(i), grads.dx.write, x.cols, dy.row(i), x.row(i), weight.data(), s);
    }
    if (dweight != nullptr) simd.add_dweight(dweight, x.cols, dy.row(i), x.row(i), s);
  };
  sum_over_rows<T>(x.rows, x.cols, grads.dweight, row);
}

#define TILEGRAD_INSTANTIATE(T)                                                                             \
  template void layernorm<T>(Mat<T>, std::span<T>, std::span<T>, Mat<const T>, std::span<const T>,          \
                             std::span<const T>, double);                                                   \
  template void layernorm_backward<T>(const LayerNormGrads<T>&, Mat<const T>, Mat<const T>,                 \
                                      std::span<const T>, std::span<const T>, std::span<const T>);          \
  template void rmsnorm<T>(Mat<T>, std::span<T>, Mat<const T>, std::span<const T>, double);                 \
  template void rmsnorm_backward<T>(const RmsNormGrads<T>&, Mat<const T>, Mat<const T>, std::span<const T>, \
                                    std::span<const T>);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels
#endif  // HWY_ONCE
