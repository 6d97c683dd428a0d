#pragma once

#include <span>

#include "tilegrad/base/random.h"
#include "tilegrad/kernels/views.h"

namespace tilegrad::kernels {

/// y_i = x_i / (1 − p) where element i is kept, 0 elsewhere, for float and double, 0 ≤ p < 1. Element i is
/// kept with probability 1 − p, decided by (key, i) alone: word i % 4 of the key's words at counter i / 4.
template <class T>
void dropout(std::span<T> y, std::span<const T> x, double p, RandomKey key);
/// dx_i (+)= dy_i / (1 − p) where kept: the same mask, drawn again.
template <class T>
void dropout_backward(std::span<T> dx, Write write, std::span<const T> dy, double p, RandomKey key);

}  // namespace tilegrad::kernels
