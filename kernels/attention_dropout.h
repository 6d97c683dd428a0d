#pragma once

#include "tilegrad/base/index.h"
#include "tilegrad/base/random.h"
#include "tilegrad/kernels/views.h"

namespace tilegrad::kernels {

/// The factors that dropout puts on the probabilities of keys [j0, j0 + n) of one row (b, h, i), whose number
/// is row = (b Hq + h) Tq + i: 1/(1 − p) if word j % 4 of the key's words at counter (j / 4, row) is at least
/// p 2³², else 0. Nothing but the key and the place decides, so both kernels and both passes drop the same.
template <class T>
void dropout_factors(T* factors, Index j0, Index n, Index row, double p, RandomKey key);

/// y (+)= x ⊙ those factors, and 0 where the factor is 0, even if x is NaN there. y may be x.
template <class T>
void apply_dropout(T* y, Write write, const T* x, Index j0, Index n, Index row, double p, RandomKey key);

}  // namespace tilegrad::kernels
