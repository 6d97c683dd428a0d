#include "tilegrad/kernels/elementwise.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "tilegrad/kernels/parallel.h"
#include "tilegrad/kernels/pieces.h"
#include "tilegrad/kernels/row_sums.h"

namespace tilegrad::kernels {

namespace {

constexpr Index kGrain = 32768;  // a piece that is worth waking a thread

// f(i) for every element, in parallel pieces. The loop body is simple enough for the compiler to vectorise.
template <class F>
void for_each(Index n, F&& f) {
  parallel_for(n, kGrain, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) f(i);
  });
}

// Σ f(i) over [begin, end) in eight interleaved sums, an order that the compiler can vectorise.
template <class S, class F>
S block_sum(Index begin, Index end, F&& f) {
  std::array<S, 8> lanes{};
  Index i = begin;
  for (; i + 8 <= end; i += 8) {
    for (Index lane = 0; lane < 8; ++lane) lanes[lane] += f(i + lane);
  }
  for (; i < end; ++i) lanes[0] += f(i);
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

// Σ f(i) over [begin, end): blocks of a thousand terms in S, the blocks in double.
template <class S, class F>
double partial_sum(Index begin, Index end, F&& f) {
  constexpr Index kBlock = 1024;
  double total = 0;
  for (Index i = begin; i < end; i += kBlock) {
    total += static_cast<double>(block_sum<S>(i, std::min(i + kBlock, end), f));
  }
  return total;
}

// Σ f(i) over [0, n): one partial sum per piece, added in order.
template <class S, class F>
S ordered_sum(Index n, F&& f) {
  std::vector<double> partial(static_cast<std::size_t>((n + kGrain - 1) / kGrain));
  parallel_for(n, kGrain,
               [&](Index begin, Index end) { partial[begin / kGrain] = partial_sum<S>(begin, end, f); });
  return static_cast<S>(std::accumulate(partial.begin(), partial.end(), 0.0));
}

}  // namespace

template <class T>
void fill(std::span<T> y, T value) {
  for_each(std::ssize(y), [p = y.data(), value](Index i) { p[i] = value; });
}

template <class T>
void add(std::span<T> y, std::span<const T> a, std::span<const T> b) {
  for_each(std::ssize(y), [p = y.data(), pa = a.data(), pb = b.data()](Index i) { p[i] = pa[i] + pb[i]; });
}

template <class T>
void sub(std::span<T> y, std::span<const T> a, std::span<const T> b) {
  for_each(std::ssize(y), [p = y.data(), pa = a.data(), pb = b.data()](Index i) { p[i] = pa[i] - pb[i]; });
}

template <class T>
void mul(std::span<T> y, std::span<const T> a, std::span<const T> b) {
  for_each(std::ssize(y), [p = y.data(), pa = a.data(), pb = b.data()](Index i) { p[i] = pa[i] * pb[i]; });
}

template <class T>
void scale(std::span<T> y, std::span<const T> x, T s) {
  for_each(std::ssize(y), [p = y.data(), px = x.data(), s](Index i) { p[i] = s * px[i]; });
}

template <class T>
void scale_backward(Grad<std::span<T>> dx, std::span<const T> dy, T s) {
  if (dx.write == Write::overwrite) {
    scale(dx.to, dy, s);
  } else {
    for_each(std::ssize(dx.to), [p = dx.to.data(), g = dy.data(), s](Index i) { p[i] += s * g[i]; });
  }
}

template <class T>
void mul_backward(Grad<std::span<T>> da, std::span<const T> dy, std::span<const T> b) {
  if (da.write == Write::overwrite) {
    mul(da.to, dy, b);
  } else {
    for_each(std::ssize(da.to),
             [p = da.to.data(), g = dy.data(), pb = b.data()](Index i) { p[i] += g[i] * pb[i]; });
  }
}

template <class T>
void add_bias(Mat<T> y, Mat<const T> x, std::span<const T> bias) {
  parallel_for(y.rows, std::max<Index>(1, kGrain / std::max<Index>(1, y.cols)), [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      T* to = y.row(i);
      const T* from = x.row(i);
      for (Index j = 0; j < y.cols; ++j) to[j] = from[j] + bias[j];
    }
  });
}

template <class T>
void add_bias_backward(Grad<std::span<T>> dbias, Mat<const T> dy) {
  sum_over_rows<T>(dy.rows, dy.cols, dbias, [&](Index i, T* to) {
    const T* from = dy.row(i);
    for (Index j = 0; j < dy.cols; ++j) to[j] += from[j];
  });
}

template <class T>
T sum(std::span<const T> x) {
  return ordered_sum<T>(std::ssize(x), [p = x.data()](Index i) { return p[i]; });
}

template <class T>
void sum_backward(Grad<std::span<T>> dx, T s) {
  if (dx.write == Write::overwrite) {
    fill(dx.to, s);
  } else {
    for_each(std::ssize(dx.to), [p = dx.to.data(), s](Index i) { p[i] += s; });
  }
}

template <class T>
double sum_of_squares(std::span<const std::span<const T>> xs) {
  const auto pieces = pieces_of(xs, kGrain, [](const auto& x) { return std::ssize(x); });
  std::vector<double> partial(pieces.size());
  parallel_for(pieces, [&](std::size_t i) {
    partial[i] =
        partial_sum<double>(pieces[i].begin, pieces[i].end, [x = xs[pieces[i].array].data()](Index k) {
          const auto value = static_cast<double>(x[k]);
          return value * value;
        });
  });
  // Each array has a sum of its own, which does not depend on the arrays around it.
  std::vector<double> sums(xs.size());
  for (std::size_t i = 0; i < pieces.size(); ++i) sums[pieces[i].array] += partial[i];
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

template <class T>
bool all_finite(std::span<const T> x) {
  // 0 · x is 0 for every finite x, and NaN for the others.
  return ordered_sum<T>(std::ssize(x), [p = x.data()](Index i) { return T{0} * p[i]; }) == T{0};
}

#define TILEGRAD_INSTANTIATE(T)                                                              \
  template void fill<T>(std::span<T>, T);                                                    \
  template void add<T>(std::span<T>, std::span<const T>, std::span<const T>);                \
  template void sub<T>(std::span<T>, std::span<const T>, std::span<const T>);                \
  template void mul<T>(std::span<T>, std::span<const T>, std::span<const T>);                \
  template void scale<T>(std::span<T>, std::span<const T>, T);                               \
  template void scale_backward<T>(Grad<std::span<T>>, std::span<const T>, T);                \
  template void mul_backward<T>(Grad<std::span<T>>, std::span<const T>, std::span<const T>); \
  template void add_bias<T>(Mat<T>, Mat<const T>, std::span<const T>);                       \
  template void add_bias_backward<T>(Grad<std::span<T>>, Mat<const T>);                      \
  template T sum<T>(std::span<const T>);                                                     \
  template void sum_backward<T>(Grad<std::span<T>>, T);                                      \
  template double sum_of_squares<T>(std::span<const std::span<const T>>);                    \
  template bool all_finite<T>(std::span<const T>);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels
