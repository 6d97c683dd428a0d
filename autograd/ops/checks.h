#pragma once

#include <string_view>

#include "tilegrad/autograd/var.h"

/// The checks at the door of an op, worded alike for all of them.
namespace tilegrad {

inline void check_same_dtype(std::string_view op, const Var& a, const Var& b) {
  check(a.dtype() == b.dtype(), "{}: dtypes differ: {} and {}", op, a.dtype(), b.dtype());
}

inline void check_same(std::string_view op, const Var& a, const Var& b) {
  check(a.shape() == b.shape(), "{}: shapes differ: {} and {}", op, a.shape(), b.shape());
  check_same_dtype(op, a, b);
}

/// A vector that goes along the last axis of x: a bias, or the weight of a norm.
inline void check_along_last(std::string_view op, std::string_view what, const Var& x, const Var& vector) {
  check(x.rank() >= 1, "{}: x needs at least one axis, it is {}", op, x.shape());
  check(vector.shape() == Shape{x.dim(-1)}, "{}: {} is {}, the last axis of x is {}", op, what,
        vector.shape(), x.dim(-1));
  check_same_dtype(op, x, vector);
}

}  // namespace tilegrad
