#pragma once

#include <array>
#include <initializer_list>
#include <span>
#include <string>

#include "tilegrad/base/error.h"
#include "tilegrad/base/index.h"

namespace tilegrad {

/// Sizes of a tensor's axes, outermost first. A scalar has rank 0. Sizes may be 0.
class Shape {
 public:
  static constexpr int kMaxRank = 6;

  Shape() = default;
  Shape(std::initializer_list<Index> dims) : Shape(std::span<const Index>(dims.begin(), dims.size())) {}
  /// Throws if there are more than kMaxRank axes, a size is negative, or the product overflows.
  explicit Shape(std::span<const Index> dims);

  int rank() const { return rank_; }
  /// Number of elements.
  Index size() const;
  /// Axis i; negative i counts from the end. Throws if out of range.
  Index operator[](int i) const { return dims_[axis(i)]; }
  /// i as a non-negative axis. Throws if out of range.
  int axis(int i) const;
  /// The last axis, 1 for a scalar: the columns when the tensor is seen as a matrix.
  Index last() const { return rank_ == 0 ? 1 : dims_[rank_ - 1]; }
  /// This shape with axis i set to n.
  Shape with(int i, Index n) const;

  std::span<const Index> dims() const { return {dims_.data(), static_cast<std::size_t>(rank_)}; }
  const Index* begin() const { return dims_.data(); }
  const Index* end() const { return dims_.data() + rank_; }

  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  std::array<Index, kMaxRank> dims_{};  // unused entries are 0, so that == compares all
  int rank_ = 0;
};

/// "(2, 3)"; "()" for a scalar.
std::string to_string(const Shape& shape);

}  // namespace tilegrad

template <>
struct fmt::formatter<tilegrad::Shape> : fmt::formatter<std::string_view> {
  auto format(const tilegrad::Shape& shape, fmt::format_context& context) const {
    return fmt::formatter<std::string_view>::format(tilegrad::to_string(shape), context);
  }
};
