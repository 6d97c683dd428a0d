#include "tilegrad/kernels/narrow.h"

#include <atomic>

#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

namespace {

constexpr Index kGrain = 65536;

std::atomic<Index> overflow_total = 0;

template <Narrow T>
void widen_all(std::span<float> y, std::span<const T> x) {
  parallel_for(std::ssize(y), kGrain, [py = y.data(), px = x.data()](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) py[i] = widen(px[i]);
  });
}

template <Narrow T>
void narrow_all(std::span<T> y, std::span<const float> x) {
  parallel_for(std::ssize(y), kGrain, [py = y.data(), px = x.data()](Index begin, Index end) {
    Narrowing<T> narrowed;
    for (Index i = begin; i < end; ++i) py[i] = narrowed(px[i]);
  });
}

}  // namespace

Index overflow_count() { return overflow_total.load(std::memory_order_relaxed); }

template <Narrow T>
void Narrowing<T>::report(Index overflows) {
  overflow_total.fetch_add(overflows, std::memory_order_relaxed);
}
template class Narrowing<bf16>;
template class Narrowing<f16>;

void widen(std::span<float> y, std::span<const bf16> x) { widen_all(y, x); }
void widen(std::span<float> y, std::span<const f16> x) { widen_all(y, x); }
void narrow(std::span<bf16> y, std::span<const float> x) { narrow_all(y, x); }
void narrow(std::span<f16> y, std::span<const float> x) { narrow_all(y, x); }

}  // namespace tilegrad::kernels
