#include "arrays.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "tensors.h"
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

std::optional<Dtype> dtype_of_tensor(nb::dlpack::dtype dtype) {
  using nb::dlpack::dtype_code;
  const auto is = [&](dtype_code code, int bits) {
    return dtype == nb::dlpack::dtype{static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(bits), 1};
  };
  if (is(dtype_code::Float, 32)) return Dtype::f32;
  if (is(dtype_code::Float, 64)) return Dtype::f64;
  if (is(dtype_code::Bfloat, 16)) return Dtype::bf16;
  if (is(dtype_code::Float, 16)) return Dtype::f16;
  if (is(dtype_code::Int, 32)) return Dtype::i32;
  if (is(dtype_code::Bool, 8) || is(dtype_code::UInt, 8)) return Dtype::u8;
  return std::nullopt;
}

std::string_view kind_of(nb::dlpack::dtype dtype) {
  using nb::dlpack::dtype_code;
  switch (static_cast<dtype_code>(dtype.code)) {
    case dtype_code::Int:
      return "int";
    case dtype_code::UInt:
      return "uint";
    case dtype_code::Float:
      return "float";
    case dtype_code::Complex:
      return "complex";
    default:
      return "other";
  }
}

}  // namespace

void Array::Release::operator()(Py_buffer* buffer) const {
  PyBuffer_Release(buffer);
  delete buffer;
}

Array::Array(nb::handle object, std::string_view name, Access access)
    : given_(!object.is_none()), name_(name) {
  if (given_ && !read_tensor(object)) read_buffer(object, access);
}

bool Array::read_tensor(nb::handle object) {
  const std::optional<nb::dlpack::dltensor> tensor = tensor_of(object, name_);
  if (!tensor) return false;
  const std::optional<Dtype> dtype = dtype_of_tensor(tensor->dtype);
  check(dtype.has_value(), "attention: {} has elements of the unknown type '{}{}'", name_,
        kind_of(tensor->dtype), tensor->dtype.bits);
  dtype_ = *dtype;
  data_ = static_cast<std::byte*>(tensor->data) + tensor->byte_offset;
  set_layout(tensor->ndim, tensor->shape, tensor->strides, bytes_of(dtype_));
  return true;
}

void Array::read_buffer(nb::handle object, Access access) {
  auto buffer = std::make_unique<Py_buffer>();
  const int flags = PyBUF_STRIDES | PyBUF_FORMAT | (access == Access::write ? PyBUF_WRITABLE : 0);
  if (PyObject_GetBuffer(object.ptr(), buffer.get(), flags) != 0) {
    PyErr_Clear();
    fail("attention: {} is not {} array", name_, access == Access::write ? "a writable" : "an");
  }
  buffer_.reset(buffer.release());

  const std::string_view format = buffer_->format == nullptr ? "B" : buffer_->format;
  const std::optional<Dtype> dtype = dtype_of_format(format);
  check(dtype.has_value(), "attention: {} has elements of the unknown type '{}'", name_, format);
  dtype_ = *dtype;
  data_ = buffer_->buf;
  set_layout(buffer_->ndim, buffer_->shape, buffer_->strides, 1);
}

template <class Integer>
void Array::set_layout(int rank, const Integer* sizes, const Integer* strides, Index unit) {
  check(rank <= Shape::kMaxRank, "attention: {} has {} axes, at most {} are possible", name_, rank,
        int{Shape::kMaxRank});
  const auto axes = static_cast<std::size_t>(rank);
  std::array<Index, Shape::kMaxRank> dims{};
  std::copy_n(sizes, axes, dims.begin());
  shape_ = Shape(std::span<const Index>(dims.data(), axes));

  const Index size = bytes_of(dtype_);
  bool aligned = reinterpret_cast<std::uintptr_t>(data_) % static_cast<std::uintptr_t>(size) == 0;
  for (std::size_t i = 0; i < axes; ++i) {
    const Index bytes = strides[i] * unit;
    aligned = aligned && (dims[i] <= 1 || bytes % size == 0);
    strides_[i] = bytes / size;
  }
  check(aligned, "attention: the elements of {} do not lie at multiples of their size", name_);
}

void Array::swap_heads_and_time() {
  if (shape_.rank() != 4) return;
  shape_ = {shape_[0], shape_[2], shape_[1], shape_[3]};
  std::swap(strides_[1], strides_[2]);
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
