#pragma once

#include <cstdint>
#include <span>

#include "tilegrad/kernels/views.h"

/// Work along one axis of a tensor, for float and double. The tensor is x (outer, n, inner), and what is left
/// without the axis is y (outer, inner).
namespace tilegrad::kernels {

struct AxisSizes {
  Index outer = 1;  ///< all axes before, multiplied
  Index n = 1;      ///< the axis
  Index inner = 1;  ///< all axes after, multiplied
};

/// y_oj (+)= s Σ_i x_oij, each summed in double, in the order of i.
template <class T>
void sum_axis(Grad<std::span<T>> y, std::span<const T> x, const AxisSizes& sizes, double s);
/// x_oij (+)= s y_oj: the backward of sum_axis, whose own backward is sum_axis.
template <class T>
void repeat_axis(Grad<std::span<T>> x, std::span<const T> y, const AxisSizes& sizes, T s);

/// ids_oj is the i of the largest x_oij, the first if there are several; NaN counts as largest. n ≥ 1.
template <class T>
void argmax_axis(std::span<std::int32_t> ids, std::span<const T> x, const AxisSizes& sizes);
/// y_oj = x_oij with i = ids_oj in [0, n).
template <class T>
void take_axis(std::span<T> y, std::span<const T> x, std::span<const std::int32_t> ids,
               const AxisSizes& sizes);
/// dx_oij (+)= dy_oj where i = ids_oj, 0 elsewhere.
template <class T>
void take_axis_backward(Grad<std::span<T>> dx, std::span<const T> dy, std::span<const std::int32_t> ids,
                        const AxisSizes& sizes);

}  // namespace tilegrad::kernels
