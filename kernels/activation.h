#pragma once

#include <span>

#include "tilegrad/kernels/views.h"

/// Activation functions, for float and double. Forward overwrites y; y may be x.
namespace tilegrad::kernels {

/// y = max(x, 0); dx (+)= dy where x > 0. At 0 the derivative is taken as 0; NaN passes through.
template <class T>
void relu(std::span<T> y, std::span<const T> x);
template <class T>
void relu_backward(Grad<std::span<T>> dx, std::span<const T> dy, std::span<const T> x);

/// The tanh form of GELU, as GPT-2 uses it (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016):
/// y = x/2 (1 + tanh u), u = √(2/π) (x + 0.044715 x³);
/// dy/dx = (1 + tanh u)/2 + x/2 (1 − tanh² u) du/dx.
template <class T>
void gelu(std::span<T> y, std::span<const T> x);
template <class T>
void gelu_backward(Grad<std::span<T>> dx, std::span<const T> dy, std::span<const T> x);

/// y = x σ(x), σ(x) = 1 / (1 + e^−x); dy/dx = σ (1 + x (1 − σ)).
template <class T>
void silu(std::span<T> y, std::span<const T> x);
template <class T>
void silu_backward(Grad<std::span<T>> dx, std::span<const T> dy, std::span<const T> x);

/// y = silu(gate) ⊙ up, in one pass (Shazeer, "GLU Variants Improve Transformer", 2020).
/// dgate (+)= dy ⊙ up ⊙ silu'(gate); dup (+)= dy ⊙ silu(gate).
template <class T>
void swiglu(std::span<T> y, std::span<const T> gate, std::span<const T> up);
template <class T>
void swiglu_backward(Grad<std::span<T>> dgate, Grad<std::span<T>> dup, std::span<const T> dy,
                     std::span<const T> gate, std::span<const T> up);

}  // namespace tilegrad::kernels
