#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/var.h"

/// Checks that several ops make, in the same words.
namespace tilegrad {

inline void check_same_dtype(const OpScope& op, const Var& a, const Var& b) {
  op.check(a.dtype() == b.dtype(), "dtypes differ: {} and {}", a.dtype(), b.dtype());
}

inline void check_same(const OpScope& op, const Var& a, const Var& b) {
  op.check(a.shape() == b.shape(), "shapes differ: {} and {}", a.shape(), b.shape());
  check_same_dtype(op, a, b);
}

/// A vector along the last axis of x: a bias, or the weight of a norm.
inline void check_along_last(const OpScope& op, std::string_view what, const Var& x, const Var& vector) {
  op.check(x.rank() >= 1, "x needs at least one axis, it is {}", x.shape());
  op.check(vector.shape() == Shape{x.dim(-1)}, "{} is {}, the last axis of x is {}", what, vector.shape(),
           x.dim(-1));
  check_same_dtype(op, x, vector);
}

/// x (..., In) and weight (Out, In).
inline void check_linear(const OpScope& op, const Var& x, const Var& weight) {
  op.check(weight.rank() == 2, "weight is {}, not (out, in)", weight.shape());
  op.check(x.rank() >= 1 && x.dim(-1) == weight.dim(1), "inner sizes differ: x is {}, weight is {}",
           x.shape(), weight.shape());
  check_same_dtype(op, x, weight);
}

/// Every id lies in [0, count), or is `ignored`.
inline void check_ids(const OpScope& op, std::string_view what, std::span<const std::int32_t> ids,
                      Index count, std::optional<std::int32_t> ignored = {}) {
  for (const std::int32_t id : ids) {
    op.check((id >= 0 && id < count) || id == ignored, "{} {} is not in [0, {})", what, id, count);
  }
}

}  // namespace tilegrad
