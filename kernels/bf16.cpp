#include "tilegrad/kernels/bf16.h"

#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

namespace {

constexpr Index kGrain = 65536;

}  // namespace

void widen(std::span<float> y, std::span<const bf16> x) {
  parallel_for(std::ssize(y), kGrain, [py = y.data(), px = x.data()](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) py[i] = widen(px[i]);
  });
}

void narrow(std::span<bf16> y, std::span<const float> x) {
  parallel_for(std::ssize(y), kGrain, [py = y.data(), px = x.data()](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) py[i] = narrow(px[i]);
  });
}

}  // namespace tilegrad::kernels
