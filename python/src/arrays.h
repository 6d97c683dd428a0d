#pragma once

#include <nanobind/nanobind.h>

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "tilegrad/autograd/dtype.h"
#include "tilegrad/autograd/ops/attention_checks.h"
#include "tilegrad/autograd/shape.h"
#include "tilegrad/kernels/views.h"

/// Memory that belongs to Python, as attention's kernels see it.
namespace tilegrad::python {

enum class Access { read, write };

/// One NumPy array or tensor, or none: its memory where it lies. An array's stays there as long as this lives; a
/// tensor's as long as the tensor does, which is the caller's care. Made and destroyed with the interpreter lock held;
/// everything else needs no lock. An array of bf16 comes as uint16, because the buffers of Python have no type for it.
class Array {
 public:
  Array() = default;
  /// `object` is an array, a tensor if read_tensors_of knows it, or None. Throws Error, which calls it `name`, if it
  /// has no buffer, its elements are of no known type or not aligned, or it is to be written and is read-only.
  Array(nanobind::handle object, std::string_view name, Access access = Access::read);

  bool given() const { return given_; }
  const Shape& shape() const { return shape_; }
  Dtype dtype() const { return dtype_; }

  /// Throws Error unless shape and dtype are these; nothing if there is no array.
  void check_is(const Shape& shape, Dtype dtype) const;
  /// Throws Error unless the elements along the last axis lie side by side, as all views below need it.
  void check_last_axis() const;
  OperandInfo info() const;
  /// (B, H, T, D) as (B, T, H, D). Nothing unless there are four axes.
  void swap_heads_and_time();

  /// The views are empty if there is no array; T is its element type. A (B, T, H, D) array:
  template <class T>
  kernels::HeadsView<T> heads() const {
    if (!given()) return {};
    return {data<T>(), shape_[0], shape_[1], shape_[2], shape_[3], strides_[0], strides_[1], strides_[2]};
  }
  /// A number for each pair, (B or 1, Hq or 1, Tq, Tk); batch and heads of size 1 have stride 0.
  template <class T>
  kernels::ScoreView<T> scores() const {
    if (!given()) return {};
    return {data<T>(), shape_[0] == 1 ? 0 : strides_[0], shape_[1] == 1 ? 0 : strides_[1], strides_[2]};
  }
  /// A contiguous array.
  template <class T>
  std::span<T> flat() const {
    if (!given()) return {};
    return {data<T>(), static_cast<std::size_t>(shape_.size())};
  }

 private:
  struct Release {
    void operator()(Py_buffer* buffer) const;
  };

  bool read_tensor(nanobind::handle object);
  void read_buffer(nanobind::handle object, Access access);
  // A stride counts in units of so many bytes.
  template <class Integer>
  void set_layout(int rank, const Integer* sizes, const Integer* strides, Index unit);
  template <class T>
  T* data() const {
    return static_cast<T*>(data_);
  }

  std::unique_ptr<Py_buffer, Release> buffer_;  // of a NumPy array
  void* data_ = nullptr;
  bool given_ = false;
  std::string_view name_;
  Shape shape_;
  Dtype dtype_ = Dtype::f32;
  std::array<Index, Shape::kMaxRank> strides_{};  // in elements
};

}  // namespace tilegrad::python
