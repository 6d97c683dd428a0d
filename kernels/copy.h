#pragma once

#include "tilegrad/kernels/views.h"

/// Copies between layouts, for float and double.
namespace tilegrad::kernels {

/// dst (+)= src, matrices of equal size with any strides: slices and concatenations.
template <class T>
void copy(Mat<T> dst, Write write, Mat<const T> src);

/// Exchanges the two middle axes: dst (A, C, B, D) (+)= src (A, B, C, D), both contiguous. It is its own
/// backward.
template <class T>
void swap_axes(T* dst, Write write, const T* src, Index a, Index b, Index c, Index d);

}  // namespace tilegrad::kernels
