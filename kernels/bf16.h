#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <type_traits>

namespace tilegrad::kernels {

/// bfloat16: the upper half of a float. Storage only; nothing computes in it.
struct bf16 {
  std::uint16_t bits;
};

/// What numbers of a type are computed in: bf16 in float, float and double in themselves.
template <class T>
struct ComputeType {
  using type = T;
};
template <>
struct ComputeType<bf16> {
  using type = float;
};
template <class T>
using Compute = typename ComputeType<std::remove_const_t<T>>::type;

/// Exact.
inline float widen(bf16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }

/// Rounds to nearest, ties to even; NaN stays NaN.
inline bf16 narrow(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return {static_cast<std::uint16_t>((bits >> 16) | 0x40U)};  // a quiet NaN, whatever was cut off
  // Adding just under half of the last kept bit, and that bit itself, carries upwards exactly when the
  // nearest neighbour, or the even one of two, lies above.
  const std::uint32_t last_kept = (bits >> 16) & 1U;
  return {static_cast<std::uint16_t>((bits + 0x7fffU + last_kept) >> 16)};
}

/// The same for arrays.
void widen(std::span<float> y, std::span<const bf16> x);
void narrow(std::span<bf16> y, std::span<const float> x);

}  // namespace tilegrad::kernels
