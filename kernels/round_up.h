#pragma once

#include "tilegrad/base/index.h"

/// Whole-number division and multiples, for n ≥ 0 and d > 0. Inside kernels/ only.
namespace tilegrad::kernels {

constexpr Index ceil_div(Index n, Index d) { return (n + d - 1) / d; }
constexpr Index round_up(Index n, Index multiple) { return ceil_div(n, multiple) * multiple; }

}  // namespace tilegrad::kernels
