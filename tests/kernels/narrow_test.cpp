#include "tilegrad/kernels/narrow.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "tests/kernels/checks.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

namespace {

// What the standard says of the bits of a number in f16, in double, in which every step is exact.
double value_of_half(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = bits >> 15 != 0 ? -1 : 1;
  if (exponent == 31) return fraction != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * HUGE_VAL;
  return exponent == 0 ? sign * std::ldexp(fraction, -24) : sign * std::ldexp(1024 + fraction, exponent - 25);
}

template <Narrow T>
std::uint16_t narrow_one(float x) {
  T y{};
  narrow(std::span<T>(&y, 1), std::span<const float>(&x, 1));
  CHECK(y.bits == narrow<T>(x).bits);
  return y.bits;
}
std::uint16_t half_bits(float x) { return narrow_one<f16>(x); }
std::uint16_t brain_bits(float x) { return narrow_one<bf16>(x); }

template <Narrow T>
float widen_one(std::uint16_t bits) {
  const T x{bits};
  float y = 0;
  widen(std::span<float>(&y, 1), std::span<const T>(&x, 1));
  return y;
}

// How many numbers overflow when x is stored.
template <Narrow T>
Index overflows_of(const std::vector<float>& x) {
  std::vector<T> y(x.size());
  const Index before = overflow_count();
  narrow(y, x);
  return overflow_count() - before;
}

constexpr float kFloatInfinity = std::numeric_limits<float>::infinity();

}  // namespace

TEST_CASE_TEMPLATE("narrow: every value survives widening and narrowing; NaN stays NaN", T, bf16, f16) {
  std::vector<T> all(65536), back(65536);
  for (std::size_t i = 0; i < all.size(); ++i) all[i].bits = static_cast<std::uint16_t>(i);
  std::vector<float> wide(all.size());
  widen(wide, all);
  narrow(back, wide);
  bool right = true;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const bool nan = std::isnan(wide[i]);
    right = right && (nan ? std::isnan(widen_one<T>(back[i].bits)) : back[i].bits == all[i].bits);
  }
  CHECK(right);
}

TEST_CASE("f16: each of its bit patterns is the number that the standard says") {
  int wrong = 0;
  for (int i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const double expected = value_of_half(bits), x = widen(f16{bits});
    const bool right =
        std::isnan(expected) ? std::isnan(x) : x == expected && std::signbit(x) == std::signbit(expected);
    wrong += right ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("f16: what lies between two neighbours goes to the nearer one, and a tie to the even one") {
  int wrong = 0;
  for (std::uint16_t lower = 0; lower < 0x7bff;
       ++lower) {  // all that are not negative, subnormal ones among them
    const auto upper = static_cast<std::uint16_t>(lower + 1);
    const auto tie = static_cast<float>((value_of_half(lower) + value_of_half(upper)) / 2);
    const std::uint16_t even = lower % 2 == 0 ? lower : upper;
    for (const float sign : {1.0F, -1.0F}) {
      const int bit = sign < 0 ? 0x8000 : 0;
      wrong += narrow<f16>(sign * tie).bits == (even | bit) ? 0 : 1;
      wrong += narrow<f16>(sign * std::nextafter(tie, 0.0F)).bits == (lower | bit) ? 0 : 1;
      wrong += narrow<f16>(sign * std::nextafter(tie, kFloatInfinity)).bits == (upper | bit) ? 0 : 1;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("f16: the ends of its range") {
  CHECK(half_bits(65504.0F) == 0x7bff);
  CHECK(half_bits(std::nextafter(65520.0F, 0.0F)) == 0x7bff);
  CHECK(half_bits(65520.0F) == 0x7c00);  // halfway to what would come next
  CHECK(half_bits(-65520.0F) == 0xfc00);
  CHECK(half_bits(std::numeric_limits<float>::max()) == 0x7c00);
  CHECK(half_bits(-kFloatInfinity) == 0xfc00);
  CHECK(half_bits(0x1.0p-14F) == 0x0400);  // the smallest normal number
  CHECK(half_bits(0x1.0p-24F) == 0x0001);  // the smallest of all
  CHECK(half_bits(0x1.0p-25F) == 0x0000);  // a tie, and 0 is even
  CHECK(half_bits(0x1.8p-25F) == 0x0001);
  CHECK(half_bits(-0x1.0p-149F) == 0x8000);
  CHECK(half_bits(-0.0F) == 0x8000);
  for (const std::uint32_t bits : {0x7f800001U, 0xffffffffU, 0x7fc00000U})
    CHECK(std::isnan(widen_one<f16>(half_bits(std::bit_cast<float>(bits)))));
}

TEST_CASE("bf16: narrowing rounds to the nearest, ties to even") {
  CHECK(brain_bits(1.0F) == 0x3f80);
  // between 1 and its successor 1 + 2^-7 lies the tie 1 + 2^-8
  CHECK(brain_bits(1.0F + 0x1.0p-8F) == 0x3f80);
  CHECK(brain_bits(1.0F + 0x1.0p-8F + 0x1.0p-20F) == 0x3f81);
  CHECK(brain_bits(1.0F + 0x1.0p-8F - 0x1.0p-20F) == 0x3f80);
  // and above an odd last bit the tie goes up
  CHECK(brain_bits(1.0F + 3 * 0x1.0p-8F) == 0x3f82);
  CHECK(brain_bits(-1.0F - 3 * 0x1.0p-8F) == 0xbf82);
  CHECK(brain_bits(-0.0F) == 0x8000);
  CHECK(brain_bits(std::numeric_limits<float>::max()) == 0x7f80);  // to infinity
  CHECK(brain_bits(kFloatInfinity) == 0x7f80);
  CHECK(std::isnan(widen_one<bf16>(brain_bits(std::bit_cast<float>(0x7f800001U)))));
}

TEST_CASE_TEMPLATE("narrow: off by half of the last bit at most, on long arrays too", T, bf16, f16) {
  const double half_bit = std::is_same_v<T, bf16> ? 0x1.0p-9 : 0x1.0p-12;  // of the power of two above
  const auto x = random<float>(150'001, 1);
  std::vector<T> narrowed(x.size());
  std::vector<float> back(x.size());
  narrow(narrowed, x);
  widen(back, narrowed);
  bool right = true;
  for (std::size_t i = 0; i < x.size(); ++i)
    right = right && std::abs(back[i] - x[i]) <= 2 * half_bit * std::max(std::abs(x[i]), 0x1.0p-14F);
  CHECK(right);
}

TEST_CASE("narrow: finite numbers that become Inf are counted, and Inf and NaN are not") {
  const float max = std::numeric_limits<float>::max(), nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(overflows_of<f16>({1, 65504, std::nextafter(65520.0F, 0.0F), kFloatInfinity, -kFloatInfinity, nan}) ==
        0);
  CHECK(overflows_of<f16>({65520, -65520, 1e6F, max, -max, 1}) == 5);
  const auto last = std::bit_cast<float>(0x7f7f7fffU);  // the last one that bf16 does not round to Inf
  CHECK(overflows_of<bf16>({1, 1e38F, last, kFloatInfinity, -kFloatInfinity, nan}) == 0);
  CHECK(overflows_of<bf16>({std::nextafter(last, kFloatInfinity), max, -max}) == 3);
  CHECK(overflows_of<f16>(std::vector<float>(150'001, -1e5F)) == 150'001);
}
