#pragma once

#include <cstdint>
#include <span>

#include "tilegrad/kernels/views.h"

/// Softmax over rows and the loss fused with it, for float and double.
namespace tilegrad::kernels {

/// y_ij = exp(x_ij − max_j x_ij) / Σ_j exp(x_ij − max_j x_ij). y may be x. NaN in a row makes the row NaN.
template <class T>
void softmax(Mat<T> y, Mat<const T> x);
/// dx (+)= y ⊙ (dy − ⟨y, dy⟩ by row): needs y only, never x.
template <class T>
void softmax_backward(Grad<Mat<T>> dx, Mat<const T> dy, Mat<const T> y);

/// Cross-entropy of softmax(logits) (N, V) against class ids (N), by row, without forming the softmax:
/// loss_i = lse_i − logits[i, target_i], lse_i = log Σ_j exp(logits_ij). Rows whose target is `ignored` have
/// loss 0. lse_i = max_i + log_sum_i is kept as two numbers, so that a large offset common to a row's logits
/// costs no digits. Writes both (N each) for the backward and returns Σ_i loss_i, summed in double.
template <class T>
double cross_entropy(std::span<T> max, std::span<T> log_sum, Mat<const T> logits,
                     std::span<const std::int32_t> targets, std::int32_t ignored);
/// dlogits_ij (+)= s (exp(logits_ij − lse_i) − [j = target_i]); 0 in ignored rows.
template <class T>
void cross_entropy_backward(Grad<Mat<T>> dlogits, T s, Mat<const T> logits, std::span<const T> max,
                            std::span<const T> log_sum, std::span<const std::int32_t> targets,
                            std::int32_t ignored);

}  // namespace tilegrad::kernels
