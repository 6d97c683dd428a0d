#pragma once

#include "tilegrad/autograd/tensor.h"

namespace tilegrad::train {

/// The largest |a_i − b_i| of two tensors of one shape, which may have different dtypes. Equal infinities do
/// not differ; a NaN differs from everything by infinity.
double largest_difference(const Tensor& a, const Tensor& b);

/// The largest |x_i|, NaN aside; 0 if there is no element.
double largest_magnitude(const Tensor& x);

/// Whether two tensors of floats agree in half of the digits of `result`'s compute type, measured against the
/// largest element: rounding costs fewer digits, a mistake in a kernel more. NaN and Inf never agree.
bool agree(const Tensor& result, const Tensor& expected);

}  // namespace tilegrad::train
