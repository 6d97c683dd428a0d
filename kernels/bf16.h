#pragma once

#include <cstdint>
#include <span>

namespace tilegrad::kernels {

/// bfloat16: the upper half of a float. Storage only; nothing computes in it.
struct bf16 {
  std::uint16_t bits;
};

/// Exact.
void widen(std::span<float> y, std::span<const bf16> x);
/// Rounds to nearest, ties to even; NaN stays NaN.
void narrow(std::span<bf16> y, std::span<const float> x);

}  // namespace tilegrad::kernels
