#pragma once

#include <span>

#include "tilegrad/kernels/views.h"

/// Normalisation over rows of x (N, C), for float and double. Statistics are one number per row.
/// Sums over rows run in a fixed order.
namespace tilegrad::kernels {

/// y = (x − mean) rstd ⊙ weight + bias, rstd = 1/√(var + eps), var the mean of (x − mean)² (Ba et al., 2016).
/// Writes mean (N) and rstd (N).
template <class T>
void layernorm(Mat<T> y, std::span<T> mean, std::span<T> rstd, Mat<const T> x, std::span<const T> weight,
               std::span<const T> bias, double eps);
/// With n = (x − mean) rstd and g = dy ⊙ weight:
/// dx (+)= rstd (g − mean_j(g) − n mean_j(g ⊙ n)); dweight (+)= Σ_rows dy ⊙ n; dbias (+)= Σ_rows dy.
template <class T>
struct LayerNormGrads {
  Grad<Mat<T>> dx = {};
  Grad<std::span<T>> dweight = {};
  Grad<std::span<T>> dbias = {};
};
template <class T>
void layernorm_backward(const LayerNormGrads<T>& grads, Mat<const T> dy, Mat<const T> x,
                        std::span<const T> weight, std::span<const T> mean, std::span<const T> rstd);

/// y = x rstd ⊙ weight, rstd = 1/√(mean_j(x²) + eps) (Zhang and Sennrich, 2019). Writes rstd (N).
template <class T>
void rmsnorm(Mat<T> y, std::span<T> rstd, Mat<const T> x, std::span<const T> weight, double eps);
/// With n = x rstd and g = dy ⊙ weight: dx (+)= rstd (g − n mean_j(g ⊙ n)); dweight (+)= Σ_rows dy ⊙ n.
template <class T>
struct RmsNormGrads {
  Grad<Mat<T>> dx = {};
  Grad<std::span<T>> dweight = {};
};
template <class T>
void rmsnorm_backward(const RmsNormGrads<T>& grads, Mat<const T> dy, Mat<const T> x,
                      std::span<const T> weight, std::span<const T> rstd);

}  // namespace tilegrad::kernels
