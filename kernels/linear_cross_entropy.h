#pragma once

#include <cstdint>
#include <span>

#include "tilegrad/kernels/views.h"

namespace tilegrad::kernels {

/// Cross-entropy (softmax.h) of logits = x weightᵀ against class ids, with its gradients, for float and double.
/// Logits are formed and used up block by block of rows: a few MiB of them are alive at a time, or 256 rows if these
/// are more, since each block reads and writes all of weight's gradient.
///
/// x (N, C), weight (V, C), targets (N). Returns Σ_i loss_i. With dlogits_ij = s (softmax(logits_i)_j − [j = target_i]),
/// and 0 in rows whose target is `ignored`:
///   dx (+)= dlogits weight,  dweight (+)= dlogitsᵀ x.
template <class T>
double linear_cross_entropy(Grad<Mat<T>> dx, Grad<Mat<T>> dweight, Mat<const T> x, Mat<const T> weight,
                            std::span<const std::int32_t> targets, std::int32_t ignored, T s);

/// Rows of one block of logits (N, V).
template <class T>
Index linear_cross_entropy_rows(Index rows, Index vocabulary);

}  // namespace tilegrad::kernels
