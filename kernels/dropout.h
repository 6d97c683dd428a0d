#pragma once

#include <span>

#include "tilegrad/base/index.h"
#include "tilegrad/base/random.h"
#include "tilegrad/kernels/views.h"

/// Dropout, for float and double, 0 ≤ p < 1. Which elements are dropped is a function of the key and of their
/// position alone, so nothing is stored: forward, backward and every attention kernel draw the same factors.
namespace tilegrad::kernels {

/// The factors of elements [j0, j0 + n) of row number `row`: 1/(1 − p) if word j % 4 of the key's words at
/// counter (j / 4, row) is at least p 2³², else 0. Attention numbers the rows of its probabilities (b Hq + h)
/// Tq + i.
template <class T>
void dropout_factors(T* factors, Index j0, Index n, Index row, double p, RandomKey key);

/// y_i = x_i ⊙ factor_i, and 0 where the factor is 0, even if x is NaN there. All of x is row 0. y may be x.
template <class T>
void dropout(std::span<T> y, std::span<const T> x, double p, RandomKey key);
/// dx (+)= dy ⊙ the same factors, drawn again.
template <class T>
void dropout_backward(Grad<std::span<T>> dx, std::span<const T> dy, double p, RandomKey key);

}  // namespace tilegrad::kernels
