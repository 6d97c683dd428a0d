#include "tilegrad/kernels/activation.h"

#include <doctest/doctest.h>

#include "tests/kernels/checks.h"
#include "tests/kernels/simd_targets.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

namespace {

constexpr Index kActivationSizes[] = {0, 1, 3, 16, 31, 100, 40'001};

// The functions and their slopes in long double, so that the kernels' double can be held against more digits.
using Wide = long double;

Wide sigmoid(Wide x) { return 1 / (1 + std::exp(-x)); }

constexpr Wide kRootTwoOverPi = 0.797884560802865355879892119868763737L;
Wide gelu_u(Wide x) { return kRootTwoOverPi * (x + 0.044715L * x * x * x); }

// An exponential turns an absolute error of its argument into a relative one of its value: the argument's
// size counts as so many more roundings.
struct Function {
  Wide value, slope, argument;
};

Function gelu_at(Wide x) {
  const Wide u = gelu_u(x), t = std::tanh(u);
  const Wide du = kRootTwoOverPi * (1 + 3 * 0.044715L * x * x);
  // (1 + tanh u)/2 = σ(2u), which keeps its digits for negative u
  return {x * sigmoid(2 * u), (1 + t) / 2 + x / 2 * (1 - t * t) * du, 2 * u};
}

Function silu_at(Wide x) {
  const Wide s = sigmoid(x);
  return {x * s, s * (1 + x * (1 - s)), x};
}

Function relu_at(Wide x) { return {x > 0 ? x : 0, x > 0 ? 1.0L : 0.0L, 0}; }

Sum value_of(const Function& f, Wide factor = 1) {
  const auto y = static_cast<double>(f.value * factor);
  return {y, std::abs(y) * (1 + static_cast<double>(std::abs(f.argument)))};
}

// The slope holds x σ (1 − σ) times the argument's own slope; 1 − σ has lost the digits that σ has not.
Sum slope_of(const Function& f, Wide factor) {
  return {static_cast<double>(f.slope * factor),
          static_cast<double>(std::abs(factor) * (1 + std::abs(f.argument)))};
}

template <class T, class At, class Forward, class Backward>
void check_activation(At at, Forward forward, Backward backward) {
  for (const Index n : kActivationSizes) {
    CAPTURE(n);
    const auto x = random<T>(n, 1, 2), dy = random<T>(n, 2);
    std::vector<Sum> y, dx;
    for (std::size_t i = 0; i < x.size(); ++i) {
      y.push_back(value_of(at(Wide{x[i]})));
      dx.push_back(slope_of(at(Wide{x[i]}), Wide{dy[i]}));
    }
    std::vector<T> out(x.size());
    forward(out, x);
    check_close(out, y, 8);
    out = x;
    forward(out, out);
    check_close(out, y, 8);
    check_writes<T>(dx, 16, [&](auto& grad, Write write) { backward(grad, write, dy, x); });
  }
}

}  // namespace

TEST_CASE_TEMPLATE("relu: agrees with its definition, forward and backward", T, float, double) {
  check_activation<T>(
      relu_at, [](auto& y, const auto& x) { relu<T>(y, x); },
      [](auto& dx, Write w, const auto& dy, const auto& x) {
        relu_backward<T>({dx, w}, dy, x);
      });
}

TEST_CASE_TEMPLATE("gelu: agrees with its definition, forward and backward", T, float, double) {
  check_activation<T>(
      gelu_at, [](auto& y, const auto& x) { gelu<T>(y, x); },
      [](auto& dx, Write w, const auto& dy, const auto& x) {
        gelu_backward<T>({dx, w}, dy, x);
      });
}

TEST_CASE_TEMPLATE("silu: agrees with its definition, forward and backward", T, float, double) {
  check_activation<T>(
      silu_at, [](auto& y, const auto& x) { silu<T>(y, x); },
      [](auto& dx, Write w, const auto& dy, const auto& x) {
        silu_backward<T>({dx, w}, dy, x);
      });
}

TEST_CASE_TEMPLATE("swiglu: agrees with its definition, forward and backward", T, float, double) {
  for (const Index n : kActivationSizes) {
    CAPTURE(n);
    const auto gate = random<T>(n, 1, 2), up = random<T>(n, 2), dy = random<T>(n, 3);
    std::vector<Sum> y, dgate, dup;
    for (std::size_t i = 0; i < gate.size(); ++i) {
      const Function f = silu_at(Wide{gate[i]});
      y.push_back(value_of(f, Wide{up[i]}));
      dgate.push_back(slope_of(f, Wide{dy[i]} * Wide{up[i]}));
      dup.push_back(value_of(f, Wide{dy[i]}));
    }
    std::vector<T> out(gate.size());
    swiglu<T>(out, gate, up);
    check_close(out, y, 8);
    check_writes<T>(dgate, 16, [&](auto& grad, Write w) { swiglu_backward<T>({grad, w}, {}, dy, gate, up); });
    check_writes<T>(dup, 8, [&](auto& grad, Write w) { swiglu_backward<T>({}, {grad, w}, dy, gate, up); });
  }
}

// An argument's rounding would cost σ as many digits as the argument has before its point.
TEST_CASE_TEMPLATE("silu: keeps its digits where the sigmoid is small", T, float, double) {
  std::vector<T> x;
  for (int i = 0; i < 1000; ++i) x.push_back(T(20) - static_cast<T>(i) * T(0.1037));
  on_each_target([&] {
    std::vector<T> y(x.size());
    silu<T>(y, x);
    Wide worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const Wide exact = Wide{x[i]} * sigmoid(x[i]);
      worst = std::max(worst, std::abs(Wide{y[i]} - exact) / std::abs(exact));
    }
    CHECK(worst <= 4 * std::numeric_limits<T>::epsilon());
  });
}

TEST_CASE_TEMPLATE("activations: NaN passes through, whole vectors and tails", T, float, double) {
  for (const std::size_t n : {1U, 5U, 67U}) {
    const std::vector<T> bad(n, std::numeric_limits<T>::quiet_NaN()), one(n, T(1));
    std::vector<T> y(n);
    const auto all_nan = [&] { return std::all_of(y.begin(), y.end(), [](T v) { return std::isnan(v); }); };
    relu<T>(y, bad);
    CHECK(all_nan());
    gelu<T>(y, bad);
    CHECK(all_nan());
    silu<T>(y, bad);
    CHECK(all_nan());
    swiglu<T>(y, bad, one);
    CHECK(all_nan());
    swiglu<T>(y, one, bad);
    CHECK(all_nan());
    gelu_backward<T>({y, Write::overwrite}, one, bad);
    CHECK(all_nan());
    silu_backward<T>({y, Write::overwrite}, one, bad);
    CHECK(all_nan());
    relu_backward<T>({y, Write::overwrite}, bad, one);
    CHECK(all_nan());
  }
}

TEST_CASE_TEMPLATE("activations: far arguments neither overflow nor lose the limit", T, float, double) {
  const std::vector<T> x = {T(-1e4), T(-200), T(200), T(1e4)}, dy(4, T(1));
  std::vector<T> y(4);
  const auto check_limits = [&](T left, T right_200, T right_1e4) {
    CHECK(std::abs(y[0] - left) < T(1e-20));
    CHECK(std::abs(y[1] - left) < T(1e-20));
    CHECK(y[2] == right_200);
    CHECK(y[3] == right_1e4);
  };
  gelu<T>(y, x);
  check_limits(T(0), T(200), T(1e4));
  silu<T>(y, x);
  check_limits(T(0), T(200), T(1e4));
  gelu_backward<T>({y, Write::overwrite}, dy, x);
  check_limits(T(0), T(1), T(1));
  silu_backward<T>({y, Write::overwrite}, dy, x);
  check_limits(T(0), T(1), T(1));
}

TEST_CASE_TEMPLATE("activations: same bits on any number of threads", T, float, double) {
  const auto x = random<T>(50'001, 1), dy = random<T>(50'001, 2);
  check_threads([&] {
    std::vector<T> y(x.size());
    gelu<T>(y, x);
    return y;
  });
  check_threads([&] {
    std::vector<T> dx(x.size());
    gelu_backward<T>({dx, Write::overwrite}, dy, x);
    return dx;
  });
}

TEST_CASE_TEMPLATE("gelu, silu: far from 0 values and slopes are those of the limits", T, float, double) {
  const std::vector<T> x = {T(-1e38), T(-1e20), T(-1e13), T(-1000), T(1000), T(1e13), T(1e20), T(1e38)};
  const std::vector<T> ones(8, T(1));
  std::vector<T> y(8), slope(8);
  const auto check_limits = [&] {
    for (int i = 0; i < 8; ++i) {
      CHECK(y[i] == (i < 4 ? T(0) : x[i]));
      CHECK(slope[i] == (i < 4 ? T(0) : T(1)));
    }
  };
  gelu<T>(y, x);
  gelu_backward<T>({slope, Write::overwrite}, ones, x);
  check_limits();
  silu<T>(y, x);
  silu_backward<T>({slope, Write::overwrite}, ones, x);
  check_limits();
}
