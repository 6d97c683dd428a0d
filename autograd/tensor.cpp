#include "tilegrad/autograd/tensor.h"

#include <algorithm>
#include <cstring>

#include "tilegrad/autograd/deferral.h"
#include "tilegrad/kernels/elementwise.h"

namespace tilegrad {

using kernels::narrow;
using kernels::widen;

Tensor Tensor::empty(const Shape& shape, Dtype dtype) {
  Tensor t = without_elements(shape, dtype);
  t.allocate();
  return t;
}

Tensor Tensor::without_elements(const Shape& shape, Dtype dtype) {
  Tensor t;
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.storage_ = std::make_shared<Storage>();
  return t;
}

void Tensor::allocate() {
  Index bytes = 0;
  check(!__builtin_mul_overflow(size(), bytes_of(dtype_), &bytes), "tensor: {} is too large", shape_);
  storage_->block = memory::Block(bytes, memory::current_category());
}

// Elements that an op which waits has not written yet.
void Tensor::compute_elements() const {
  Deferral::compute_waiting();
  check(storage_->block.data() != nullptr, "tensor: it has no elements");
}

// What an op that waits is going to read must not be written before.
void Tensor::compute_readers() { Deferral::compute_waiting(); }

Tensor Tensor::zeros(const Shape& shape, Dtype dtype) {
  Tensor t = empty(shape, dtype);
  std::memset(t.storage_->block.data(), 0, static_cast<std::size_t>(t.bytes()));
  return t;
}

Tensor Tensor::full(const Shape& shape, Dtype dtype, double value) {
  Tensor t = empty(shape, dtype);
  with_float_type("full", dtype, [&]<class T>() { kernels::fill<T>(t.mut<T>(), static_cast<T>(value)); });
  return t;
}

template <class T>
Tensor Tensor::from(const Shape& shape, std::span<const T> values) {
  check(std::ssize(values) == shape.size(), "tensor: {} values do not fill {}", values.size(), shape);
  Tensor t = empty(shape, dtype_of<T>);
  std::copy(values.begin(), values.end(), t.mut<T>().begin());
  return t;
}
template Tensor Tensor::from(const Shape&, std::span<const float>);
template Tensor Tensor::from(const Shape&, std::span<const double>);
template Tensor Tensor::from(const Shape&, std::span<const std::int32_t>);
template Tensor Tensor::from(const Shape&, std::span<const std::uint8_t>);

Tensor Tensor::normal(const Shape& shape, Dtype dtype, RandomKey key, double std) {
  Tensor t = empty(shape, dtype);
  RandomStream stream(key);
  with_float_type("normal", dtype, [&]<class T>() {
    for (T& x : t.mut<T>()) x = static_cast<T>(std * stream.normal());
  });
  return t;
}

Tensor Tensor::uniform(const Shape& shape, Dtype dtype, RandomKey key, double limit) {
  Tensor t = empty(shape, dtype);
  RandomStream stream(key);
  with_float_type("uniform", dtype, [&]<class T>() {
    for (T& x : t.mut<T>()) x = static_cast<T>(limit * (2.0 * stream.uniform() - 1.0));
  });
  return t;
}

Index Tensor::rows() const { return shape_.last() == 0 ? 0 : size() / shape_.last(); }

Tensor Tensor::reshape(const Shape& shape) const {
  check_defined();
  check(shape.size() == size(), "reshape: {} has {} elements, {} has {}", shape_, size(), shape,
        shape.size());
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::prefix(Index n) const {
  check(rank() > 0 && n >= 0 && n <= dim(0), "prefix: {} entries of {}", n, shape_);
  Tensor t = *this;
  t.shape_ = shape_.with(0, n);
  return t;
}

Tensor Tensor::clone() const {
  check_defined();
  const std::byte* const from = elements();
  Tensor t = empty(shape_, dtype_);
  std::memcpy(t.storage_->block.data(), from, static_cast<std::size_t>(bytes()));
  return t;
}

namespace {

// Narrow types go through float, to and from which kernels/narrow.h converts them.
template <class From, class To>
void convert(std::span<To> y, std::span<const From> x) {
  std::transform(x.begin(), x.end(), y.begin(), [](From value) { return static_cast<To>(value); });
}

}  // namespace

Tensor Tensor::cast(Dtype dtype) const {
  check_defined();
  if (dtype == dtype_) return clone();
  check(is_float(dtype) && is_float(dtype_), "cast: {} to {} is not supported", dtype_, dtype);
  if (is_narrow(dtype_)) {
    Tensor wide = empty(shape_, Dtype::f32);
    with_narrow_type(dtype_, [&]<class T>() { widen(wide.mut<float>(), view<T>()); });
    return dtype == Dtype::f32 ? wide : wide.cast(dtype);
  }
  if (is_narrow(dtype)) {
    if (dtype_ == Dtype::f64) return cast(Dtype::f32).cast(dtype);
    Tensor t = empty(shape_, dtype);
    with_narrow_type(dtype, [&]<class T>() { narrow(t.mut<T>(), view<float>()); });
    return t;
  }
  Tensor t = empty(shape_, dtype);
  if (dtype == Dtype::f64) {
    convert<float, double>(t.mut<double>(), view<float>());
  } else {
    convert<double, float>(t.mut<float>(), view<double>());
  }
  return t;
}

double Tensor::at(Index i) const {
  check(i >= 0 && i < size(), "tensor: element {} of {} does not exist", i, shape_);
  const auto k = static_cast<std::size_t>(i);
  switch (dtype_) {
    case Dtype::f32:
      return view<float>()[k];
    case Dtype::f64:
      return view<double>()[k];
    case Dtype::i32:
      return view<std::int32_t>()[k];
    case Dtype::u8:
      return view<std::uint8_t>()[k];
    case Dtype::bf16:
      return widen(view<bf16>()[k]);
    case Dtype::f16:
      return widen(view<f16>()[k]);
  }
  return 0;
}

double Tensor::at(std::initializer_list<Index> position) const {
  const std::span<const Index> asked(position.begin(), position.size());
  check(std::ssize(asked) == rank(), "tensor: ({}) is not a position in {}", fmt::join(asked, ", "), shape_);
  Index element = 0;
  for (int axis = 0; axis < rank(); ++axis) {
    const Index n = dim(axis), i = asked[static_cast<std::size_t>(axis)];
    check(-n <= i && i < n, "tensor: ({}) is not a position in {}", fmt::join(asked, ", "), shape_);
    element = element * n + (i < 0 ? i + n : i);
  }
  return at(element);
}

double Tensor::item() const {
  check(size() == 1, "item: {} has {} elements, not one", shape_, size());
  return at(0);
}

void Tensor::check_defined() const { check(defined(), "tensor: used before it was given a value"); }

void Tensor::check_type(Dtype asked) const {
  check_defined();
  check(dtype_ == asked, "tensor: elements are {}, not {}", dtype_, asked);
}

}  // namespace tilegrad
