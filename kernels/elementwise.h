#pragma once

#include <span>

#include "tilegrad/kernels/views.h"

/// Elementwise maps and sums, for float and double. Spans of one call have equal sizes. Forward kernels
/// overwrite y, which may be one of the inputs.
namespace tilegrad::kernels {

template <class T>
void fill(std::span<T> y, T value);

/// y = a + b,  y = a - b,  y = a ⊙ b,  y = s x.
template <class T>
void add(std::span<T> y, std::span<const T> a, std::span<const T> b);
template <class T>
void sub(std::span<T> y, std::span<const T> a, std::span<const T> b);
template <class T>
void mul(std::span<T> y, std::span<const T> a, std::span<const T> b);
template <class T>
void scale(std::span<T> y, std::span<const T> x, T s);

/// dx (+)= s dy: the backward of add, sub and scale.
template <class T>
void scale_backward(Grad<std::span<T>> dx, std::span<const T> dy, T s);
/// da (+)= dy ⊙ b: the backward of mul for one factor, given the other.
template <class T>
void mul_backward(Grad<std::span<T>> da, std::span<const T> dy, std::span<const T> b);

/// y = x + bias, the bias (C) added to every row of x (N, C).
template <class T>
void add_bias(Mat<T> y, Mat<const T> x, std::span<const T> bias);
/// dbias (+)= Σ_rows dy: the column sums, in the fixed order of row_sums.h.
template <class T>
void add_bias_backward(Grad<std::span<T>> dbias, Mat<const T> dy);

/// Σ x, in a fixed order: blocks of a thousand elements in T, the blocks in double.
template <class T>
T sum(std::span<const T> x);
/// dx (+)= s for every element: the backward of sum and mean.
template <class T>
void sum_backward(Grad<std::span<T>> dx, T s);

/// Σ x² over several arrays, summed in double whatever T is: gradient norms.
template <class T>
double sum_of_squares(std::span<const std::span<const T>> xs);

/// True if no element is NaN or infinite.
template <class T>
bool all_finite(std::span<const T> x);

}  // namespace tilegrad::kernels
