#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "tilegrad/autograd/tensor.h"

namespace tilegrad {

/// A number that identifies the calling thread. Unlike std::thread::id, it is never reused after a thread has ended.
std::uint64_t thread_number();

/// What a value knows of the tape that recorded it. It outlives the tape.
struct TapeMark {
  std::uint64_t number;                ///< unique among all tapes ever made
  std::uint64_t thread;                ///< thread_number() of the thread that made the tape
  std::atomic<bool> recording = true;  ///< until backward, or the tape's end
};

/// Where the gradient of one value accumulates. The edges of the tape are cells, not values, so an edge never
/// keeps a value alive.
struct GradCell {
  GradCell(const Shape& value_shape, Dtype value_dtype, std::shared_ptr<const TapeMark> recorder = nullptr)
      : shape(value_shape), dtype(value_dtype), tape(std::move(recorder)) {}

  bool is_leaf() const { return tape == nullptr; }

  const Shape shape;
  const Dtype dtype;
  Tensor grad;                                 ///< empty until the first contribution
  const std::shared_ptr<const TapeMark> tape;  ///< null for a leaf
  /// Of a leaf: the thread whose backward walk adds to it, 0 if none does. Walks of two threads at once would
  /// add to the same memory.
  std::atomic<std::uint64_t> writer = 0;
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
  /// A tracked value that no op made: an input whose gradient is needed. f32, f64, bf16 or f16.
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
/// Movable, not copyable: each parameter exists once. Code that has to refer to it wherever it moves, such as
/// an optimizer, holds a share().
///
/// Any number of threads may compute with a parameter. If the backward walks of two threads reach it at the same time,
/// one of them throws an Error; one after the other, they add up. Writing its value while another thread reads it is a
/// race.
class Parameter {
 public:
  Parameter() = default;
  explicit Parameter(Tensor initial);
  Parameter(Parameter&&) = default;
  Parameter& operator=(Parameter&&) = default;

  /// A handle to the same parameter: it shares value and gradient, and stays valid when this one is moved or destroyed.
  Parameter share() const;

  operator Var() const { return defined() ? Var(state_->value, state_->cell) : Var(); }
  bool defined() const { return state_ != nullptr; }
  const Tensor& value() const { return state().value; }
  Tensor& value() { return state().value; }
  const Shape& shape() const { return state().value.shape(); }
  /// Undefined if no gradient has arrived since zero_grad().
  const Tensor& grad() const { return state().cell->grad; }
  Tensor& grad() { return state().cell->grad; }
  void zero_grad() { state().cell->grad = Tensor(); }

 private:
  struct State {
    Tensor value;
    std::shared_ptr<GradCell> cell;
  };

  State& state() const {
    check(defined(), "parameter: used before it was given a value");
    return *state_;
  }

  std::shared_ptr<State> state_;
};

}  // namespace tilegrad
