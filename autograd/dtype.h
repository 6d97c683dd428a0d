#pragma once

#include <cstdint>
#include <string_view>

#include "tilegrad/base/error.h"
#include "tilegrad/base/index.h"
#include "tilegrad/kernels/narrow.h"

namespace tilegrad {

/// Element types. f32 and f64 compute; bf16 and f16 only store; i32 holds token ids, u8 masks.
enum class Dtype { f32, f64, bf16, f16, i32, u8 };

std::string_view to_string(Dtype dtype);
Index bytes_of(Dtype dtype);

using kernels::bf16;
using kernels::f16;

template <class T>
inline constexpr Dtype dtype_of = [] { static_assert(sizeof(T) == 0, "not an element type"); }();
template <>
inline constexpr Dtype dtype_of<float> = Dtype::f32;
template <>
inline constexpr Dtype dtype_of<double> = Dtype::f64;
template <>
inline constexpr Dtype dtype_of<bf16> = Dtype::bf16;
template <>
inline constexpr Dtype dtype_of<f16> = Dtype::f16;
template <>
inline constexpr Dtype dtype_of<std::int32_t> = Dtype::i32;
template <>
inline constexpr Dtype dtype_of<std::uint8_t> = Dtype::u8;

/// The types of 16 bits, which only store.
inline bool is_narrow(Dtype dtype) { return dtype == Dtype::bf16 || dtype == Dtype::f16; }
inline bool is_float(Dtype dtype) { return dtype == Dtype::f32 || dtype == Dtype::f64 || is_narrow(dtype); }
/// What numbers of this type are computed in: narrow ones in f32, the others in themselves.
inline Dtype compute_dtype(Dtype dtype) { return is_narrow(dtype) ? Dtype::f32 : dtype; }

/// Calls f.operator()<float>() or f.operator()<double>(). Throws for the types that do not compute, naming
/// `op`.
template <class F>
decltype(auto) with_float_type(std::string_view op, Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::f32:
      return f.template operator()<float>();
    case Dtype::f64:
      return f.template operator()<double>();
    default:
      fail("{}: {} does not compute; cast to f32 or f64 first", op, to_string(dtype));
  }
}

/// Calls f.operator()<bf16>() or f.operator()<f16>(), for a narrow type.
template <class F>
decltype(auto) with_narrow_type(Dtype dtype, F&& f) {
  return dtype == Dtype::bf16 ? f.template operator()<bf16>() : f.template operator()<f16>();
}

/// For what takes narrow types as well: calls f with the type that elements are stored in, narrow or not.
template <class F>
decltype(auto) with_stored_type(std::string_view op, Dtype dtype, F&& f) {
  return is_narrow(dtype) ? with_narrow_type(dtype, f) : with_float_type(op, dtype, f);
}

}  // namespace tilegrad

template <>
struct fmt::formatter<tilegrad::Dtype> : fmt::formatter<std::string_view> {
  auto format(tilegrad::Dtype dtype, fmt::format_context& context) const {
    return fmt::formatter<std::string_view>::format(tilegrad::to_string(dtype), context);
  }
};
