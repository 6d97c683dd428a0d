#pragma once

#include <iosfwd>
#include <string>

#include "tilegrad/autograd/var.h"

namespace tilegrad {

/// Shape, dtype and elements, four digits of each:
///   (2, 3) f32
///   [[  1, 2.5,   3],
///    [  4,   5,   6]]
/// Of an axis with more than six entries, the first three and the last three.
std::string to_string(const Tensor& tensor);

std::ostream& operator<<(std::ostream& out, const Tensor& tensor);
/// Its value.
std::ostream& operator<<(std::ostream& out, const Var& x);

}  // namespace tilegrad
