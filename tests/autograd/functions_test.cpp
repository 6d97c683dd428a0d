#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/message_of.h"
#include "tilegrad/autograd/operators.h"
#include "tilegrad/autograd/tape.h"

using namespace tilegrad;
using test::message_of;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");

Tensor numbers(std::initializer_list<double> values) {
  return Tensor::from<double>({static_cast<Index>(values.size())}, values);
}

// Equal, or both NaN.
void check_equal(const Var& actual, std::initializer_list<double> expected) {
  REQUIRE(actual.value().size() == static_cast<Index>(expected.size()));
  Index i = 0;
  for (const double value : expected) {
    const double got = actual.value().at(i++);
    CHECK((got == value || (std::isnan(got) && std::isnan(value)) ||
           got == doctest::Approx(value).epsilon(1e-15)));
  }
}

// The gradient of Σ f(x).
template <class F>
Tensor slope(F&& f, const Tensor& at) {
  const Var x = Var::leaf(at);
  Tape tape;
  tape.backward(sum(f(x)));
  return x.grad();
}

}  // namespace

TEST_CASE("functions of one number: are those of <cmath>, at the ends of the range too") {
  const Tensor x = numbers({-kInf, -1e300, -2, -0.0, 0.5, 800, kInf, kNan});
  const auto check_all = [&](const Var& y, auto&& f) {
    for (Index i = 0; i < x.size(); ++i) {
      CAPTURE(x.at(i));
      const double expected = f(x.at(i)), got = y.value().at(i);
      CHECK((got == expected || (std::isnan(got) && std::isnan(expected))));
    }
  };
  check_all(exp(x), [](double v) { return std::exp(v); });
  check_all(log(x), [](double v) { return std::log(v); });
  check_all(tanh(x), [](double v) { return std::tanh(v); });
  check_all(sigmoid(x), [](double v) { return 1 / (1 + std::exp(-v)); });
  check_all(abs(x), [](double v) { return std::abs(v); });
  check_all(sqrt(x), [](double v) { return std::sqrt(v); });
  check_all(pow(x, 3), [](double v) { return std::pow(v, 3); });
  check_all(clamp(x, -1, 2), [](double v) { return std::isnan(v) ? v : std::clamp(v, -1.0, 2.0); });
}

TEST_CASE("functions of one number: float is rounded double") {
  const Tensor x = Tensor::normal({50}, Dtype::f32, RandomKey{1});
  const Tensor y = tanh(x).value(), wide = tanh(x.cast(Dtype::f64)).value();
  for (Index i = 0; i < 50; ++i) CHECK(y.at(i) == doctest::Approx(wide.at(i)).epsilon(2e-7));
}

TEST_CASE("div, maximum, minimum, where: values, with NaN on either side") {
  const Tensor a = numbers({1, -4, kNan, 3}), b = numbers({2, -8, 1, kNan});
  check_equal(div(a, b), {0.5, 0.5, kNan, kNan});
  check_equal(maximum(a, b), {2, -4, kNan, kNan});
  check_equal(minimum(a, b), {1, -8, kNan, kNan});
  check_equal(where(Tensor::from<std::uint8_t>({4}, {1, 0, 0, 7}), a, b), {1, -8, 1, 3});
}

TEST_CASE("edges: which slope is taken where a function has none") {
  check_equal(slope([](const Var& x) { return abs(x); }, numbers({-2, 0, 3})), {-1, 0, 1});
  check_equal(slope([](const Var& x) { return clamp(x, -1, 1); }, numbers({-2, -1, 0, 1, 2})),
              {0, 1, 1, 1, 0});
  check_equal(slope([](const Var& x) { return pow(x, 0); }, numbers({0, 2})), {0, 0});
  const Tensor ones = numbers({1, 1, 1});
  check_equal(slope([&](const Var& x) { return maximum(x, ones); }, numbers({0, 1, 2})), {0, 0.5, 1});
  check_equal(slope([&](const Var& x) { return minimum(ones, x); }, numbers({0, 1, 2})), {1, 0.5, 0});
  check_equal(slope([](const Var& x) { return max(x, 0); }, numbers({1, 3, 3})), {0, 1, 0});
}

TEST_CASE("operators: are the ops, with a number on either side") {
  const Tensor a = numbers({1, 2, 3}), b = numbers({4, -5, 8});
  check_equal(a + b, {5, -3, 11});
  check_equal(a - b, {-3, 7, -5});
  check_equal(a * b, {4, -10, 24});
  check_equal(b / a, {4, -2.5, 8.0 / 3});
  check_equal(-b, {-4, 5, -8});
  check_equal(a + 1, {2, 3, 4});
  check_equal(1 + a, {2, 3, 4});
  check_equal(a - 1, {0, 1, 2});
  check_equal(1 - a, {0, -1, -2});
  check_equal(a * 2, {2, 4, 6});
  check_equal(2 * a, {2, 4, 6});
  check_equal(a / 2, {0.5, 1, 1.5});
  check_equal(6 / a, {6, 3, 2});
}

TEST_CASE("operators: a parameter takes part, and receives its gradient") {
  Parameter w(numbers({1, 2, 3}));
  Tape tape;
  tape.backward(sum((1 - w) * w / 2));
  check_equal(w.grad(), {-0.5, -1.5, -2.5});
}

TEST_CASE("functions: a wrong shape, dtype or setting is an error that says so") {
  const Var a = numbers({1, 2}), b = numbers({1, 2, 3});
  const Tensor wrong = Tensor::from<std::uint8_t>({3}, {1, 1, 1});
  CHECK(message_of([&] { a / b; }) == "div: shapes differ: (2) and (3)");
  CHECK(message_of([&] { maximum(a, Tensor::zeros({2}, Dtype::f32)); }) ==
        "maximum: dtypes differ: f64 and f32");
  CHECK(message_of([&] { where(wrong, a, a); }) ==
        "where: condition is (3) u8, a and b are (2); it has to be u8 of their shape");
  CHECK(message_of([&] { where(a.value(), a, a); }) ==
        "where: condition is (2) f64, a and b are (2); it has to be u8 of their shape");
  CHECK(message_of([&] { clamp(a, 2, 1); }) == "clamp: low is 2, high is 1");
  CHECK(message_of([&] { clamp(a, 0, kNan); }) == "clamp: low is 0, high is nan");
  CHECK(message_of([&] { exp(Tensor::zeros({2}, Dtype::bf16)); }) ==
        "exp: bf16 does not compute; cast to f32 or f64 first");
}
