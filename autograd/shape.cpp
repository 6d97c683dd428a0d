#include "tilegrad/autograd/shape.h"

#include <algorithm>

namespace tilegrad {

Shape::Shape(std::span<const Index> dims) {
  check(std::ssize(dims) <= kMaxRank, "shape: {} axes, at most {} are supported", dims.size(), kMaxRank);
  rank_ = static_cast<int>(dims.size());
  Index total = 1;
  for (int i = 0; i < rank_; ++i) {
    const Index dim = dims[i];
    check(dim >= 0, "shape: axis {} has negative size {}", i, dim);
    check(!__builtin_mul_overflow(total, std::max<Index>(dim, 1), &total), "shape: too many elements");
    dims_[i] = dim;
  }
}

Index Shape::size() const {
  Index total = 1;
  for (const Index dim : *this) total *= dim;
  return total;
}

int Shape::axis(int i) const {
  check(i >= -rank_ && i < rank_, "shape: axis {} of {} does not exist", i, *this);
  return i < 0 ? i + rank_ : i;
}

Shape Shape::with(int i, Index n) const {
  Shape changed = *this;
  changed.dims_[axis(i)] = n;
  return Shape(changed.dims());  // checks n
}

std::string to_string(const Shape& shape) { return fmt::format("({})", fmt::join(shape.dims(), ", ")); }

}  // namespace tilegrad
