#pragma once

#include "tilegrad/kernels/views.h"

namespace tilegrad::kernels {

/// Rotary position embedding (Su et al., "RoFormer", 2021), half-split form: for j < D/2, with
/// angle = (t + first_position) · base^(−2j/D), the pair (x_j, x_{j + D/2}) is rotated by that angle.
/// x, y (B, T, H, D), D even, float and double; y may be x. Each thread keeps a table of the angles that it computed last,
/// T · D numbers.
template <class T>
void rope(HeadsView<T> y, HeadsView<const T> x, Index first_position, double base);
/// dx (+)= dy rotated by the opposite angle: a rotation's transpose is its inverse.
template <class T>
void rope_backward(Grad<HeadsView<T>> dx, HeadsView<const T> dy, Index first_position, double base);

}  // namespace tilegrad::kernels
