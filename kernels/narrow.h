#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <type_traits>

#include "tilegrad/base/index.h"

/// Numbers of 16 bits. They are storage only: nothing computes in them.
namespace tilegrad::kernels {

/// bfloat16: the upper half of a float.
struct bf16 {
  std::uint16_t bits;
};
/// binary16 of IEEE 754: 5 bits of exponent and 10 of fraction, the largest number is 65504.
struct f16 {
  std::uint16_t bits;
};

template <class T>
concept Narrow = std::is_same_v<T, bf16> || std::is_same_v<T, f16>;

/// What numbers of a type are computed in: narrow ones in float, float and double in themselves.
template <class T>
struct ComputeType {
  using type = T;
};
template <Narrow T>
struct ComputeType<T> {
  using type = float;
};
template <class T>
using Compute = typename ComputeType<std::remove_const_t<T>>::type;

/// Exact; a NaN may become a quiet one.
inline float widen(bf16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }
inline float widen(f16 x) {
  constexpr std::uint32_t kInfinity = 0x7c00, kMoreBias = std::uint32_t{127 - 15} << 23;
  const std::uint32_t magnitude = x.bits & 0x7fffU, sign = static_cast<std::uint32_t>(x.bits & 0x8000U) << 16;
  const std::uint32_t moved = (magnitude << 13) + kMoreBias;  // right for normal numbers
  // Subnormal numbers have no implicit 1: with the exponent of the smallest normal ones it is there, and taken away.
  const std::uint32_t subnormal =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(moved + (1U << 23)) - 0x1.0p-14F);
  const std::uint32_t bits = magnitude >= kInfinity ? moved + kMoreBias
                             : magnitude < 0x400U   ? subnormal
                                                    : moved;
  return std::bit_cast<float>(bits | sign);
}

/// Rounds to nearest, ties to even; NaN stays NaN. What lies beyond the largest number by half of its last bit or more
/// becomes Inf.
template <Narrow T>
T narrow(float x);

template <>
inline bf16 narrow<bf16>(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return {static_cast<std::uint16_t>((bits >> 16) | 0x40U)};  // a quiet NaN, whatever was cut off
  // Adding just under half of the last kept bit, and that bit itself, carries upwards exactly when the
  // nearest neighbour, or the even one of two, lies above.
  const std::uint32_t last_kept = (bits >> 16) & 1U;
  return {static_cast<std::uint16_t>((bits + 0x7fffU + last_kept) >> 16)};
}

template <>
inline f16 narrow<f16>(float x) {
  constexpr std::uint32_t kInfinity = 0x7f800000, kLeastNormal = 0x38800000, kOverflow = 0x477ff000;
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t magnitude = bits & 0x7fffffffU, sign = (bits >> 16) & 0x8000U;
  // As for bf16, after the difference of the biases has been taken from the exponent.
  const std::uint32_t last_kept = (magnitude >> 13) & 1U;
  const std::uint32_t normal = (magnitude - (std::uint32_t{127 - 15} << 23) + 0xfffU + last_kept) >> 13;
  // Subnormal numbers are multiples of 2^-24, the last bit of a float in [1/2, 1): the addition rounds to it.
  const std::uint32_t subnormal =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3f000000U;
  const std::uint32_t nan = 0x7e00U | ((magnitude >> 13) & 0x3ffU);
  const std::uint32_t kept = magnitude > kInfinity      ? nan
                             : magnitude >= kOverflow   ? 0x7c00U
                             : magnitude < kLeastNormal ? subnormal
                                                        : normal;
  return {static_cast<std::uint16_t>(kept | sign)};
}

/// Whether a number is finite as a float and Inf as a T.
template <Narrow T>
bool overflows(float x) {
  constexpr std::uint32_t kFirst = std::is_same_v<T, f16> ? 0x477ff000 : 0x7f7f8000, kInfinity = 0x7f800000;
  const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(x) & 0x7fffffffU;
  return kFirst <= magnitude && magnitude < kInfinity;
}

/// How many finite numbers have become Inf when they were stored in 16 bits, since the program began, in all threads.
Index overflow_count();

/// Rounds numbers for storage. When it ends, those that have overflowed are in overflow_count().
template <Narrow T>
class Narrowing {
 public:
  Narrowing() = default;
  ~Narrowing() {
    if (overflows_ > 0) report(overflows_);
  }
  Narrowing(const Narrowing&) = delete;
  Narrowing& operator=(const Narrowing&) = delete;

  T operator()(float x) {
    overflows_ += overflows<T>(x) ? 1 : 0;
    return narrow<T>(x);
  }
  /// Numbers that other code has rounded, and that have overflowed.
  void add_overflows(Index n) { overflows_ += n; }

 private:
  static void report(Index overflows);

  Index overflows_ = 0;
};

/// The same for arrays; overflow_count() counts what overflows.
void widen(std::span<float> y, std::span<const bf16> x);
void widen(std::span<float> y, std::span<const f16> x);
void narrow(std::span<bf16> y, std::span<const float> x);
void narrow(std::span<f16> y, std::span<const float> x);

}  // namespace tilegrad::kernels
