#include "kernels/dropout.h"

#include <algorithm>

#include "kernels/parallel.h"

namespace tilegrad::kernels {

namespace {

// f(i, factor) for every element, factor being 1/(1 − p) where element i is kept and 0 elsewhere.
template <class T, class F>
void for_each_kept(Index n, double p, RandomKey key, F&& f) {
  constexpr Index kGrain = 8192;  // a multiple of 4, so that no two pieces share a counter
  const T factor = static_cast<T>(1 / (1 - p));
  const auto threshold = static_cast<std::uint64_t>(p * 0x1.0p32);
  parallel_for(n, kGrain, [&](Index begin, Index end) {
    for (Index i = begin; i < end; i += 4) {
      const auto words = key.words(static_cast<std::uint64_t>(i / 4));
      for (Index lane = 0; lane < std::min<Index>(4, end - i); ++lane) {
        f(i + lane, words[static_cast<std::size_t>(lane)] >= threshold ? factor : T{0});
      }
    }
  });
}

}  // namespace

template <class T>
void dropout(std::span<T> y, std::span<const T> x, double p, RandomKey key) {
  for_each_kept<T>(std::ssize(y), p, key, [py = y.data(), px = x.data()](Index i, T factor) {
    py[i] = factor == T{0} ? T{0} : factor * px[i];
  });
}

template <class T>
void dropout_backward(std::span<T> dx, Write write, std::span<const T> dy, double p, RandomKey key) {
  // forward: y_i = factor_i x_i
  for_each_kept<T>(std::ssize(dx), p, key, [pdx = dx.data(), pdy = dy.data(), write](Index i, T factor) {
    put(pdx[i], write, factor == T{0} ? T{0} : factor * pdy[i]);
  });
}

template void dropout<float>(std::span<float>, std::span<const float>, double, RandomKey);
template void dropout<double>(std::span<double>, std::span<const double>, double, RandomKey);
template void dropout_backward<float>(std::span<float>, Write, std::span<const float>, double, RandomKey);
template void dropout_backward<double>(std::span<double>, Write, std::span<const double>, double, RandomKey);

}  // namespace tilegrad::kernels
