#pragma once

#include <cstdint>
#include <memory>

#include "tilegrad/autograd/tensor.h"

namespace tilegrad {

/// Where the gradient of one value accumulates. The edges of the tape are cells, not values, so an edge never
/// keeps a value alive.
struct GradCell {
  Shape shape;
  Dtype dtype;
  Tensor grad;             ///< empty until the first contribution
  std::uint64_t tape = 0;  ///< the tape that recorded the value; 0 for a leaf
};

class Recomputation;

/// A value in a computation. With a cell it is tracked: ops on it are recorded on the active tape. Without
/// one it is a constant. With a recomputation, ops that save it keep that in place of its elements. Copies
/// are cheap and share all three.
class Var {
 public:
  Var() = default;
  /// A constant; implicit, so that tensors can be passed to ops.
  Var(Tensor value) : value_(std::move(value)) {}
  Var(Tensor value, std::shared_ptr<GradCell> cell, std::shared_ptr<Recomputation> recomputation = nullptr)
      : value_(std::move(value)), cell_(std::move(cell)), recomputation_(std::move(recomputation)) {}
  /// A tracked value that no op made: an input whose gradient is needed. f32, f64 or bf16.
  static Var leaf(Tensor value);

  const Tensor& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  Dtype dtype() const { return value_.dtype(); }
  int rank() const { return value_.rank(); }
  Index dim(int i) const { return value_.dim(i); }

  bool tracked() const { return cell_ != nullptr; }
  const std::shared_ptr<GradCell>& cell() const { return cell_; }
  /// How to compute the value again; null unless recomputed() made it.
  const std::shared_ptr<Recomputation>& recomputation() const { return recomputation_; }
  /// The gradient of a leaf after backward; undefined() before, or if the result does not depend on it.
  const Tensor& grad() const;

  /// The same value as a constant.
  Var detach() const { return Var(value_); }

 private:
  Tensor value_;
  std::shared_ptr<GradCell> cell_;
  std::shared_ptr<Recomputation> recomputation_;
};

/// A leaf that belongs to a model: its cell outlives every tape, so gradients accumulate until zero_grad().
/// Movable, not copyable: a parameter is one thing, and an optimizer refers to it.
class Parameter {
 public:
  Parameter() = default;
  explicit Parameter(Tensor initial);
  Parameter(Parameter&&) = default;
  Parameter& operator=(Parameter&&) = default;

  operator Var() const { return Var(value_, cell_); }
  bool defined() const { return value_.defined(); }
  const Tensor& value() const { return value_; }
  Tensor& value() { return value_; }
  const Shape& shape() const { return value_.shape(); }
  /// Undefined if no gradient has arrived since zero_grad().
  const Tensor& grad() const { return cell().grad; }
  Tensor& grad() { return cell().grad; }
  void zero_grad() { cell().grad = Tensor(); }

 private:
  GradCell& cell() const {
    check(cell_ != nullptr, "parameter: used before it was given a value");
    return *cell_;
  }

  Tensor value_;
  std::shared_ptr<GradCell> cell_;
};

}  // namespace tilegrad
