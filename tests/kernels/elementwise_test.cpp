#include "tilegrad/kernels/elementwise.h"

#include <doctest/doctest.h>

#include <functional>

#include "tests/kernels/checks.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

namespace {

// Around the width of a vector, and enough for several pieces.
constexpr Index kLengths[] = {0, 1, 3, 16, 31, 100, 70'001};

template <class T>
double squares_of(const std::vector<std::vector<T>>& arrays) {
  const std::vector<std::span<const T>> xs(arrays.begin(), arrays.end());
  return sum_of_squares<T>(xs);
}

template <class T, class F>
std::vector<Sum> map2(const std::vector<T>& a, const std::vector<T>& b, F&& f) {
  std::vector<Sum> y;
  for (std::size_t i = 0; i < a.size(); ++i) {
    y.emplace_back(f(static_cast<double>(a[i]), static_cast<double>(b[i])));
  }
  return y;
}

}  // namespace

TEST_CASE_TEMPLATE("add, sub, mul, scale and fill: agree with plain loops, also in place", T, float, double) {
  for (const Index n : kLengths) {
    CAPTURE(n);
    const auto a = random<T>(n, 1), b = random<T>(n, 2);
    std::vector<T> y(a.size());
    add<T>(y, a, b);
    check_close(y, map2(a, b, std::plus<>()), 1);
    sub<T>(y, a, b);
    check_close(y, map2(a, b, std::minus<>()), 1);
    mul<T>(y, a, b);
    check_close(y, map2(a, b, std::multiplies<>()), 1);
    scale<T>(y, a, T(-0.3));
    check_close(y, map2(a, b, [](double v, double) { return double{T(-0.3)} * v; }), 1);
    y = a;
    add<T>(y, y, b);
    check_close(y, map2(a, b, std::plus<>()), 1);
    y = b;
    sub<T>(y, a, y);
    check_close(y, map2(a, b, std::minus<>()), 1);
    fill<T>(y, T(7));
    CHECK(y == std::vector<T>(a.size(), T(7)));
  }
}

TEST_CASE_TEMPLATE("scale_backward, mul_backward and sum_backward: overwrite garbage, then add", T, float,
                   double) {
  for (const Index n : kLengths) {
    CAPTURE(n);
    const auto dy = random<T>(n, 1), b = random<T>(n, 2);
    check_writes<T>(map2(dy, b, [](double g, double) { return double{T(-0.3)} * g; }), 2,
                    [&](auto& dx, Write write) {
                      scale_backward<T>({dx, write}, dy, T(-0.3));
                    });
    check_writes<T>(map2(dy, b, std::multiplies<>()), 2, [&](auto& da, Write write) {
      mul_backward<T>({da, write}, dy, b);
    });
    check_writes<T>(std::vector<Sum>(dy.size(), Sum(0.25)), 1, [&](auto& dx, Write write) {
      sum_backward<T>({dx, write}, T(0.25));
    });
  }
}

TEST_CASE_TEMPLATE("add_bias: adds the bias to every row, and its gradient is the column sums", T, float,
                   double) {
  for (const Index rows : {0, 1, 5, 900}) {
    for (const Index cols : {1, 7, 48, 130}) {
      CAPTURE(rows);
      CAPTURE(cols);
      const Padded<T> x(rows, cols, 1);
      const auto bias = random<T>(cols, 2);
      std::vector<Sum> y, sums(bias.size());
      for (Index i = 0; i < rows; ++i) {
        for (Index j = 0; j < cols; ++j) {
          const auto column = static_cast<std::size_t>(j);
          y.emplace_back(x(i, j) + static_cast<double>(bias[column]));
          sums[column].add(x(i, j));
        }
      }
      Padded<T> out(rows, cols, 3);
      add_bias<T>(view(out), view(x), bias);
      check_close(out.dense(), y, 1);
      CHECK(out.room_is_untouched());
      check_writes<T>(sums, static_cast<double>(rows) + 1, [&](auto& dbias, Write write) {
        add_bias_backward<T>({dbias, write}, view(x));
      });
    }
  }
}

TEST_CASE_TEMPLATE("sum and sum_of_squares: agree with plain loops", T, float, double) {
  for (const Index n : kLengths) {
    CAPTURE(n);
    const auto x = random<T>(n, 1);
    Sum total, squares;
    for (const T v : x) {
      total.add(static_cast<double>(v));
      squares.add(static_cast<double>(v) * static_cast<double>(v));
    }
    check_close(std::vector<T>{sum<T>(x)}, {total}, static_cast<double>(n));
    check_close(std::vector<double>{squares_of<T>({x})}, {squares}, static_cast<double>(n) + 1);
  }
}

TEST_CASE_TEMPLATE("sum_of_squares: of several arrays is the sum of theirs, each summed as it would be alone",
                   T, float, double) {
  std::vector<std::vector<T>> arrays;
  double expected = 0;
  for (const Index n : {3, 0, 70'001, 1, 32'768}) {
    arrays.push_back(random<T>(n, static_cast<std::uint64_t>(n)));
    expected += squares_of<T>({arrays.back()});
  }
  CHECK(squares_of<T>(arrays) == expected);
  check_threads([&] { return std::vector<double>{squares_of<T>(arrays)}; });
}

TEST_CASE("sum_of_squares: is summed in double, so small floats after a large one count") {
  std::vector<float> x(100'001, 1e-4F);
  x[0] = 1e3F;
  const double small = static_cast<double>(1e-4F) * static_cast<double>(1e-4F);
  check_close(std::vector<double>{squares_of<float>({x})}, {Sum(1e6 + 1e5 * small)}, 1e5);
}

TEST_CASE_TEMPLATE("all_finite: finds one NaN or infinity anywhere", T, float, double) {
  for (const Index n : kLengths) {
    CAPTURE(n);
    auto x = random<T>(n, 1);
    if (n > 0) x[0] = std::numeric_limits<T>::max();
    CHECK(all_finite<T>(x));
    for (const Index at : {Index{0}, n / 2, n - 1}) {
      for (const T bad : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(),
                          -std::numeric_limits<T>::infinity()}) {
        if (n == 0) continue;
        auto damaged = x;
        damaged[at] = bad;
        CHECK_FALSE(all_finite<T>(damaged));
      }
    }
  }
}

TEST_CASE_TEMPLATE("elementwise: NaN passes through", T, float, double) {
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> bad(37, nan), zero(37, T(0));
  std::vector<T> y(37);
  mul<T>(y, zero, bad);
  CHECK(std::isnan(y[36]));
  scale<T>(y, bad, T(0));
  CHECK(std::isnan(y[36]));
  CHECK(std::isnan(sum<T>(bad)));
  CHECK(std::isnan(squares_of<T>({bad})));
}

TEST_CASE_TEMPLATE("sums: same bits on any number of threads", T, float, double) {
  const auto x = random<T>(300'001, 1);
  const Padded<T> dy(900, 200, 2);
  check_threads([&] { return std::vector<T>{sum<T>(x)}; });
  check_threads([&] { return std::vector<double>{squares_of<T>({x})}; });
  check_threads([&] {
    std::vector<T> dbias(200);
    add_bias_backward<T>({dbias, Write::overwrite}, view(dy));
    return dbias;
  });
}
