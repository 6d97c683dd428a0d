#include "arrays.h"

#include <cstdint>
#include <optional>

#include "tilegrad/base/error.h"

namespace tilegrad::python {

namespace nb = nanobind;

namespace {

// From the format letters of Python's module struct. NumPy leaves the machine's own byte order out, but for an unaligned
// array, where it writes '='.
std::optional<Dtype> dtype_of_format(std::string_view format) {
  if (format.starts_with('=')) format.remove_prefix(1);
  if (format == "f") return Dtype::f32;
  if (format == "d") return Dtype::f64;
  if (format == "H") return Dtype::bf16;
  if (format == "e") return Dtype::f16;
  if (format == "i" || (format == "l" && sizeof(long) == sizeof(std::int32_t))) return Dtype::i32;
  if (format == "B" || format == "?") return Dtype::u8;
  return std::nullopt;
}

}  // namespace

void Array::Release::operator()(Py_buffer* buffer) const {
  PyBuffer_Release(buffer);
  delete buffer;
}

Array::Array(nb::handle object, std::string_view name, Access access) : name_(name) {
  if (object.is_none()) return;
  auto buffer = std::make_unique<Py_buffer>();
  const int flags = PyBUF_STRIDES | PyBUF_FORMAT | (access == Access::write ? PyBUF_WRITABLE : 0);
  if (PyObject_GetBuffer(object.ptr(), buffer.get(), flags) != 0) {
    PyErr_Clear();
    fail("attention: {} is not {} array", name, access == Access::write ? "a writable" : "an");
  }
  buffer_.reset(buffer.release());

  const std::string_view format = buffer_->format == nullptr ? "B" : buffer_->format;
  const std::optional<Dtype> dtype = dtype_of_format(format);
  check(dtype.has_value(), "attention: {} has elements of the unknown type '{}'", name, format);
  dtype_ = *dtype;

  const auto rank = static_cast<std::size_t>(buffer_->ndim);
  check(rank <= Shape::kMaxRank, "attention: {} has {} axes, at most {} are possible", name, rank,
        int{Shape::kMaxRank});
  std::array<Index, Shape::kMaxRank> dims{};
  for (std::size_t i = 0; i < rank; ++i) dims[i] = buffer_->shape[i];
  shape_ = Shape(std::span<const Index>(dims.data(), rank));
  check_aligned();
  for (std::size_t i = 0; i < rank; ++i) strides_[i] = buffer_->strides[i] / buffer_->itemsize;
}

void Array::check_aligned() const {
  const Index size = bytes_of(dtype_);
  bool aligned = reinterpret_cast<std::uintptr_t>(buffer_->buf) % static_cast<std::uintptr_t>(size) == 0;
  for (int i = 0; i < buffer_->ndim; ++i)
    aligned = aligned && (shape_[i] <= 1 || buffer_->strides[i] % size == 0);
  check(aligned, "attention: the elements of {} do not lie at multiples of their size", name_);
}

void Array::check_is(const Shape& shape, Dtype dtype) const {
  if (!given()) return;
  check(shape_ == shape && dtype_ == dtype, "attention: {} is {} {}, not {} {}", name_, dtype_, shape_, dtype,
        shape);
}

void Array::check_last_axis() const {
  if (!given() || shape_.rank() == 0) return;
  check(shape_.last() <= 1 || strides_[static_cast<std::size_t>(shape_.rank() - 1)] == 1,
        "attention: the last axis of {} is not contiguous", name_);
}

OperandInfo Array::info() const {
  const bool integers = given() && shape_.rank() == 1 && dtype_ == Dtype::i32;
  return {.given = given(),
          .shape = shape_,
          .dtype = dtype_,
          .integers = integers ? flat<const std::int32_t>() : std::span<const std::int32_t>()};
}

}  // namespace tilegrad::python
