#include "kernels/bf16.h"

#include <bit>

#include "kernels/parallel.h"

namespace tilegrad::kernels {

namespace {

float widen_one(bf16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }

bf16 narrow_one(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return {static_cast<std::uint16_t>((bits >> 16) | 0x40U)};  // a quiet NaN, whatever was cut off
  // Adding just under half of the last kept bit, and that bit itself, carries upwards exactly when the
  // nearest neighbour, or the even one of two, lies above.
  const std::uint32_t last_kept = (bits >> 16) & 1U;
  return {static_cast<std::uint16_t>((bits + 0x7fffU + last_kept) >> 16)};
}

constexpr Index kGrain = 65536;

}  // namespace

void widen(std::span<float> y, std::span<const bf16> x) {
  parallel_for(std::ssize(y), kGrain, [py = y.data(), px = x.data()](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) py[i] = widen_one(px[i]);
  });
}

void narrow(std::span<bf16> y, std::span<const float> x) {
  parallel_for(std::ssize(y), kGrain, [py = y.data(), px = x.data()](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) py[i] = narrow_one(px[i]);
  });
}

}  // namespace tilegrad::kernels
