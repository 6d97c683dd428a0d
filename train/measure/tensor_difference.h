#pragma once

#include "tilegrad/autograd/tensor.h"

namespace tilegrad::train {

/// The largest |a_i − b_i| of two tensors of one shape, which may have different dtypes. Equal infinities do
/// not differ; a NaN differs from everything by infinity.
double largest_difference(const Tensor& a, const Tensor& b);

}  // namespace tilegrad::train
