#pragma once

#include <initializer_list>
#include <memory>
#include <span>
#include <type_traits>

#include "tilegrad/autograd/dtype.h"
#include "tilegrad/autograd/shape.h"
#include "tilegrad/base/memory.h"
#include "tilegrad/base/random.h"
#include "tilegrad/kernels/views.h"

namespace tilegrad {

/// A contiguous, row-major array. Copies share the elements (clone() does not), as in NumPy; whoever writes
/// through mut() changes them for all. Every write is counted, so that the tape can tell whether a value that
/// it saved has been modified since.
class Tensor {
 public:
  /// No elements and no storage: defined() is false, and reading or copying elements is an Error.
  Tensor() = default;

  /// Uninitialised elements, counted under memory::current_category().
  static Tensor empty(const Shape& shape, Dtype dtype);
  /// Shape and dtype alone: reading or writing elements throws, unless a Deferral has given it some.
  static Tensor without_elements(const Shape& shape, Dtype dtype);
  static Tensor empty_like(const Tensor& other) { return empty(other.shape(), other.dtype()); }
  static Tensor zeros(const Shape& shape, Dtype dtype);
  /// f32 or f64.
  static Tensor full(const Shape& shape, Dtype dtype, double value);
  /// Copies `values` in row-major order. Throws if their number is not the shape's size.
  template <class T>
  static Tensor from(const Shape& shape, std::span<const T> values);
  template <class T>
  static Tensor from(const Shape& shape, std::initializer_list<T> values) {
    return from<T>(shape, std::span<const T>(values.begin(), values.size()));
  }
  /// Independent draws from N(0, std²) or, uniform, from [-limit, limit); f32 or f64. The same key gives the
  /// same numbers whatever the dtype, up to rounding.
  static Tensor normal(const Shape& shape, Dtype dtype, RandomKey key, double std = 1.0);
  static Tensor uniform(const Shape& shape, Dtype dtype, RandomKey key, double limit = 1.0);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  Dtype dtype() const { return dtype_; }
  int rank() const { return shape_.rank(); }
  Index dim(int i) const { return shape_[i]; }
  Index size() const { return shape_.size(); }
  Index bytes() const { return size() * bytes_of(dtype_); }

  /// The elements. Throws if T is not the element type.
  template <class T>
  std::span<const T> view() const {
    return {data<T>(), static_cast<std::size_t>(size())};
  }
  /// The elements to write to.
  template <class T>
  std::span<T> mut() {
    return {mut_data<T>(), static_cast<std::size_t>(size())};
  }
  /// The elements as a matrix whose columns are the last axis.
  template <class T>
  kernels::Mat<const T> mat() const {
    return {data<T>(), rows(), shape_.last()};
  }
  template <class T>
  kernels::Mat<T> mut_mat() {
    return {mut_data<T>(), rows(), shape_.last()};
  }
  /// A (B, T, H, D) tensor as attention's kernels see it.
  template <class T>
  kernels::HeadsView<const T> heads() const {
    return {data<T>(), dim(0), dim(1), dim(2), dim(3)};
  }
  template <class T>
  kernels::HeadsView<T> mut_heads() {
    return {mut_data<T>(), dim(0), dim(1), dim(2), dim(3)};
  }
  /// All axes but the last, multiplied.
  Index rows() const;

  /// The same elements in another shape of equal size.
  Tensor reshape(const Shape& shape) const;
  /// The first n entries along axis 0, sharing the elements.
  Tensor prefix(Index n) const;
  Tensor clone() const;
  /// A converted copy; between f32, f64, bf16 and f16. Between f64 and the last two it goes by way of f32.
  Tensor cast(Dtype dtype) const;

  /// Element at a row-major position, as double, whatever the dtype.
  double at(Index i) const;
  /// Element at a position, one index per axis; negative ones count from the end.
  double at(std::initializer_list<Index> position) const;
  /// The only element. Throws if there are more.
  double item() const;

  /// True if no other Tensor shares the elements.
  bool unique() const { return storage_.use_count() == 1; }
  /// Number of times that the elements were opened for writing.
  std::uint64_t version() const {
    check_defined();
    return storage_->version;
  }
  bool shares_storage_with(const Tensor& other) const { return storage_ == other.storage_; }

 private:
  friend class Deferral;

  struct Storage {
    memory::Block block;  // none as long as the elements wait for a Deferral
    std::uint64_t version = 0;
  };

  void allocate();

  void check_defined() const;
  void check_type(Dtype asked) const;
  std::byte* elements() const {
    if (storage_->block.data() == nullptr) [[unlikely]]
      compute_elements();
    return storage_->block.data();
  }
  void compute_elements() const;
  static void compute_readers();
  template <class T>
  const T* data() const {
    check_type(dtype_of<T>);
    return reinterpret_cast<const T*>(elements());
  }
  template <class T>
  T* mut_data() {
    check_type(dtype_of<T>);
    compute_readers();
    ++storage_->version;
    return reinterpret_cast<T*>(elements());
  }

  Shape shape_;
  Dtype dtype_ = Dtype::f32;
  std::shared_ptr<Storage> storage_;
};

}  // namespace tilegrad
