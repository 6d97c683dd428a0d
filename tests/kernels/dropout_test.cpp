#include "tilegrad/kernels/dropout.h"

#include <doctest/doctest.h>

#include "tests/kernels/checks.h"
#include "tests/kernels/simd_targets.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

namespace {

constexpr RandomKey kKey{42};
constexpr Index kDropoutSizes[] = {0, 1, 3, 4, 17, 40'003};

// The rule in the header, word by word.
bool kept(Index i, double p) {
  const auto words = kKey.words(static_cast<std::uint64_t>(i / 4));
  return static_cast<double>(words[i % 4]) >= std::floor(p * 0x1.0p32);
}

template <class T>
std::vector<Sum> masked(const std::vector<T>& x, double p) {
  std::vector<Sum> y;
  for (std::size_t i = 0; i < x.size(); ++i) {
    y.emplace_back(kept(static_cast<Index>(i), p) ? static_cast<double>(x[i]) / (1 - p) : 0.0);
  }
  return y;
}

}  // namespace

TEST_CASE_TEMPLATE("dropout: forward and backward apply the mask that key and position name", T, float,
                   double) {
  for (const double p : {0.0, 0.1, 0.5, 0.9}) {
    for (const Index n : kDropoutSizes) {
      CAPTURE(p);
      CAPTURE(n);
      const auto x = random<T>(n, 1);
      std::vector<T> y(x.size());
      dropout<T>(y, x, p, kKey);
      check_close(y, masked(x, p), 3);
      auto in_place = x;
      dropout<T>(in_place, in_place, p, kKey);
      CHECK(same_bits(in_place, y));
      check_writes<T>(masked(x, p), 3, [&](auto& dx, Write write) {
        dropout_backward<T>({dx, write}, x, p, kKey);
      });
    }
  }
}

TEST_CASE_TEMPLATE("dropout: p = 0 changes nothing, and what is dropped is 0 even for NaN", T, float,
                   double) {
  const auto x = random<T>(101, 1);
  std::vector<T> y(x.size());
  dropout<T>(y, x, 0, kKey);
  CHECK(same_bits(y, x));
  const std::vector<T> bad(101, std::numeric_limits<T>::quiet_NaN());
  dropout<T>(y, bad, 0.5, kKey);
  bool right = true;
  for (Index i = 0; i < 101; ++i) {
    const T value = y[i];
    right = right && (kept(i, 0.5) ? std::isnan(value) : value == T(0));
  }
  CHECK(right);
}

TEST_CASE("dropout: keeps the mean, and the expected share of elements") {
  const std::vector<double> ones(100'000, 1.0);
  std::vector<double> y(ones.size());
  const double p = 0.3;
  dropout<double>(y, ones, p, kKey);
  double sum = 0;
  for (const double v : y) sum += v;
  // Σ y has mean n and variance n p/(1 − p): five standard deviations.
  const auto n = static_cast<double>(ones.size());
  CHECK(std::abs(sum - n) < 5 * std::sqrt(n * p / (1 - p)));
}

TEST_CASE_TEMPLATE("dropout: another key draws another mask, threads and SIMD targets do not", T, float,
                   double) {
  const std::vector<T> ones(50'001, T(1));
  const auto draw = [&](RandomKey key) {
    std::vector<T> y(ones.size());
    dropout<T>(y, ones, 0.5, key);
    return y;
  };
  CHECK_FALSE(same_bits(draw(kKey), draw(kKey.fold(1))));
  check_threads([&] { return draw(kKey); });
  const auto mask = draw(kKey);
  on_each_target([&] { CHECK(same_bits(draw(kKey), mask)); });
}
