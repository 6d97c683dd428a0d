#pragma once

#include <span>

#include "tilegrad/kernels/views.h"

/// Normalisation over rows of x (N, C), for float and double. Statistics are one number a row.
/// In the backward kernels a gradient with null data is not wanted. Sums over rows run in a fixed order.
namespace tilegrad::kernels {

/// y = (x − mean) rstd ⊙ weight + bias, rstd = 1/√(var + eps), var the mean of (x − mean)² (Ba et al., 2016).
/// Writes mean (N) and rstd (N).
template <class T>
void layernorm(Mat<T> y, std::span<T> mean, std::span<T> rstd, std::type_identity_t<Mat<const T>> x,
               std::span<const std::type_identity_t<T>> weight, std::span<const std::type_identity_t<T>> bias,
               double eps);
/// With n = (x − mean) rstd and g = dy ⊙ weight:
/// dx (+)= rstd (g − mean_j(g) − n mean_j(g ⊙ n)); dweight (+)= Σ_rows dy ⊙ n; dbias (+)= Σ_rows dy.
template <class T>
struct LayerNormGrads {
  Mat<T> dx;
  Write write_x = Write::overwrite;
  std::span<T> dweight;
  Write write_weight = Write::overwrite;
  std::span<T> dbias;
  Write write_bias = Write::overwrite;
};
template <class T>
void layernorm_backward(const LayerNormGrads<T>& grads, std::type_identity_t<Mat<const T>> dy,
                        std::type_identity_t<Mat<const T>> x, std::span<const std::type_identity_t<T>> weight,
                        std::span<const std::type_identity_t<T>> mean,
                        std::span<const std::type_identity_t<T>> rstd);

/// y = x rstd ⊙ weight, rstd = 1/√(mean_j(x²) + eps) (Zhang and Sennrich, 2019). Writes rstd (N).
template <class T>
void rmsnorm(Mat<T> y, std::span<T> rstd, std::type_identity_t<Mat<const T>> x,
             std::span<const std::type_identity_t<T>> weight, double eps);
/// With n = x rstd and g = dy ⊙ weight: dx (+)= rstd (g − n mean_j(g ⊙ n)); dweight (+)= Σ_rows dy ⊙ n.
template <class T>
struct RmsNormGrads {
  Mat<T> dx;
  Write write_x = Write::overwrite;
  std::span<T> dweight;
  Write write_weight = Write::overwrite;
};
template <class T>
void rmsnorm_backward(const RmsNormGrads<T>& grads, std::type_identity_t<Mat<const T>> dy,
                      std::type_identity_t<Mat<const T>> x, std::span<const std::type_identity_t<T>> weight,
                      std::span<const std::type_identity_t<T>> rstd);

}  // namespace tilegrad::kernels
