#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>

#include "tilegrad/kernels/views.h"

/// Functions of one number or two, each next to its derivative, and the loops over them, for float and double.
/// They follow <cmath>: what is infinite or NaN there is infinite or NaN here.
namespace tilegrad::kernels {

/// y = f(x). `slope` is dy/dx, computed from y if `from_y`, else from x: what the op keeps for backward.
struct Exp {
  static constexpr std::string_view name = "exp";
  static constexpr bool from_y = true;
  auto value(auto x) const { return std::exp(x); }
  auto slope(auto y) const { return y; }
};

struct Log {
  static constexpr std::string_view name = "log";
  static constexpr bool from_y = false;
  auto value(auto x) const { return std::log(x); }
  auto slope(auto x) const { return 1 / x; }
};

struct Tanh {
  static constexpr std::string_view name = "tanh";
  static constexpr bool from_y = true;
  auto value(auto x) const { return std::tanh(x); }
  auto slope(auto y) const { return 1 - y * y; }
};

/// 1 / (1 + e^−x).
struct Sigmoid {
  static constexpr std::string_view name = "sigmoid";
  static constexpr bool from_y = true;
  auto value(auto x) const { return 1 / (1 + std::exp(-x)); }
  auto slope(auto y) const { return y * (1 - y); }
};

/// |x|; at 0 the derivative is taken as 0.
struct Abs {
  static constexpr std::string_view name = "abs";
  static constexpr bool from_y = false;
  auto value(auto x) const { return std::abs(x); }
  template <class T>
  T slope(T x) const {
    return x == 0 ? T{0} : std::copysign(T{1}, x);
  }
};

struct Sqrt {
  static constexpr std::string_view name = "sqrt";
  static constexpr bool from_y = true;
  auto value(auto x) const { return std::sqrt(x); }
  auto slope(auto y) const { return 1 / (2 * y); }
};

/// x^p.
struct Pow {
  static constexpr std::string_view name = "pow";
  static constexpr bool from_y = false;
  double p;
  template <class T>
  T value(T x) const {
    return std::pow(x, static_cast<T>(p));
  }
  template <class T>
  T slope(T x) const {
    return p == 0 ? T{0} : static_cast<T>(p) * std::pow(x, static_cast<T>(p - 1));
  }
};

/// min(max(x, low), high); NaN passes through. The derivative is 1 at both bounds.
struct Clamp {
  static constexpr std::string_view name = "clamp";
  static constexpr bool from_y = false;
  double low, high;
  template <class T>
  T value(T x) const {
    return x < static_cast<T>(low)    ? static_cast<T>(low)
           : x > static_cast<T>(high) ? static_cast<T>(high)
                                      : x;
  }
  template <class T>
  T slope(T x) const {
    return x < static_cast<T>(low) || x > static_cast<T>(high) ? T{0} : T{1};
  }
};

/// s / x.
struct Quotient {
  static constexpr std::string_view name = "quotient";
  static constexpr bool from_y = false;
  double s;
  template <class T>
  T value(T x) const {
    return static_cast<T>(s) / x;
  }
  template <class T>
  T slope(T x) const {
    return -static_cast<T>(s) / x / x;
  }
};

/// y = f(a, b), with dy/da and dy/db.
struct Div {
  static constexpr std::string_view name = "div";
  auto value(auto a, auto b) const { return a / b; }
  auto slope_a(auto, auto b) const { return 1 / b; }
  auto slope_b(auto a, auto b) const { return -a / b / b; }
};

/// The larger of the two, or NaN if one of them is NaN. Equal arguments share the derivative by halves.
struct Maximum {
  static constexpr std::string_view name = "maximum";
  bool takes_a(auto a, auto b) const { return a > b || std::isnan(a); }
  auto value(auto a, auto b) const { return takes_a(a, b) ? a : b; }
  template <class T>
  T slope_a(T a, T b) const {
    return a == b ? T(0.5) : static_cast<T>(takes_a(a, b));
  }
  auto slope_b(auto a, auto b) const { return 1 - slope_a(a, b); }
};

/// The smaller of the two, or NaN if one of them is NaN. Equal arguments share the derivative by halves.
struct Minimum {
  static constexpr std::string_view name = "minimum";
  auto value(auto a, auto b) const { return -Maximum{}.value(-a, -b); }
  auto slope_a(auto a, auto b) const { return Maximum{}.slope_a(-a, -b); }
  auto slope_b(auto a, auto b) const { return Maximum{}.slope_b(-a, -b); }
};

/// y = f(x);  dx (+)= dy ⊙ slope, from `kept`: y if F::from_y, else x.
template <class T, class F>
void apply(std::span<T> y, std::span<const T> x, const F& f);
template <class T, class F>
void apply_backward(Grad<std::span<T>> dx, std::span<const T> dy, std::span<const T> kept, const F& f);

/// y = f(a, b);  da (+)= dy ⊙ slope_a, db (+)= dy ⊙ slope_b.
template <class T, class F>
void apply(std::span<T> y, std::span<const T> a, std::span<const T> b, const F& f);
template <class T, class F>
void apply_backward(Grad<std::span<T>> da, Grad<std::span<T>> db, std::span<const T> dy, std::span<const T> a,
                    std::span<const T> b, const F& f);

/// y = x + s.
template <class T>
void shift(std::span<T> y, std::span<const T> x, T s);

/// y = a where `condition` is not 0, b elsewhere.
template <class T>
void where(std::span<T> y, std::span<const std::uint8_t> condition, std::span<const T> a,
           std::span<const T> b);
/// dx (+)= dy where (condition ≠ 0) == chosen, 0 elsewhere: the backward for a (true) and for b (false).
template <class T>
void where_backward(Grad<std::span<T>> dx, std::span<const T> dy, std::span<const std::uint8_t> condition,
                    bool chosen);

}  // namespace tilegrad::kernels
