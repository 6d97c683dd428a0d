#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <vector>

/// How close is close enough: tolerances that follow from the arithmetic instead of being guessed.
namespace tilegrad::test {

/// The largest relative error of one rounding in T.
template <class T>
constexpr double unit_roundoff() {
  return static_cast<double>(std::numeric_limits<T>::epsilon()) / 2;
}

/// How far a sum may lie from the exact one, in whatever order it was added: after `terms` roundings of terms
/// whose absolute values add up to `magnitude`, at most terms · u · magnitude (Higham, "Accuracy and
/// Stability of Numerical Algorithms", 2002, section 4.2). Doubled, because the expected value is rounded as
/// well.
template <class T>
double tolerance(double terms, double magnitude) {
  return 2 * terms * unit_roundoff<T>() * magnitude + static_cast<double>(std::numeric_limits<T>::min());
}

/// An expected value together with the sum of the absolute values of its terms, which scales its error.
struct Sum {
  double value = 0;
  double magnitude = 0;

  Sum() = default;
  explicit Sum(double v) : value(v), magnitude(std::abs(v)) {}
  Sum(double v, double m) : value(v), magnitude(m) {}

  void add(double term) {
    value += term;
    magnitude += std::abs(term);
  }
};

/// Every element lies within the tolerance of `terms` roundings. NaN is never close.
template <class T>
void check_close(const std::vector<T>& actual, const std::vector<Sum>& expected, double terms) {
  REQUIRE(actual.size() == expected.size());
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double value = static_cast<double>(actual[i]), allowed = tolerance<T>(terms, expected[i].magnitude);
    if (std::abs(value - expected[i].value) <= allowed) continue;
    if (wrong++ == 0) {
      INFO("element ", i, " is ", value, " instead of ", expected[i].value, ", allowed is ", allowed);
      CHECK(std::abs(value - expected[i].value) <= allowed);
    }
  }
  CHECK(wrong == 0);
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace tilegrad::test
