#pragma once

#include "tilegrad/base/index.h"

/// Vectorised loops over one row, for the attention kernels; float and double.
namespace tilegrad::kernels {

/// max_i x_i; −inf if n is 0.
template <class T>
T row_max(Index n, const T* x);

/// y_i = exp(x_i − shift), and returns Σ y_i. y may be x. NaN stays NaN.
template <class T>
T row_exp(T* y, Index n, const T* x, T shift);

/// Σ_i a_i b_i.
template <class T>
T row_dot(Index n, const T* a, const T* b);

/// y_i *= s.
template <class T>
void row_scale(T* y, Index n, T s);

/// Whether there is neither NaN nor Inf among the x_i.
template <class T>
bool row_is_finite(Index n, const T* x);

}  // namespace tilegrad::kernels
