#include "tilegrad/kernels/bf16.h"

#include <doctest/doctest.h>

#include <bit>

#include "tests/kernels/checks.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

namespace {

std::uint16_t narrow_one(float x) {
  bf16 y{};
  narrow(std::span<bf16>(&y, 1), std::span<const float>(&x, 1));
  return y.bits;
}

float widen_one(std::uint16_t bits) {
  const bf16 x{bits};
  float y = 0;
  widen(std::span<float>(&y, 1), std::span<const bf16>(&x, 1));
  return y;
}

}  // namespace

TEST_CASE("bf16: every value survives widening and narrowing; NaN stays NaN") {
  std::vector<bf16> all(65536), back(65536);
  for (std::size_t i = 0; i < all.size(); ++i) all[i].bits = static_cast<std::uint16_t>(i);
  std::vector<float> wide(all.size());
  widen(wide, all);
  narrow(back, wide);
  bool right = true;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const bool nan = std::isnan(wide[i]);
    right = right && (nan ? std::isnan(widen_one(back[i].bits)) : back[i].bits == all[i].bits);
  }
  CHECK(right);
}

TEST_CASE("bf16: narrowing rounds to the nearest, ties to even") {
  CHECK(narrow_one(1.0F) == 0x3f80);
  // between 1 and its successor 1 + 2^-7 lies the tie 1 + 2^-8
  CHECK(narrow_one(1.0F + 0x1.0p-8F) == 0x3f80);
  CHECK(narrow_one(1.0F + 0x1.0p-8F + 0x1.0p-20F) == 0x3f81);
  CHECK(narrow_one(1.0F + 0x1.0p-8F - 0x1.0p-20F) == 0x3f80);
  // and above an odd last bit the tie goes up
  CHECK(narrow_one(1.0F + 3 * 0x1.0p-8F) == 0x3f82);
  CHECK(narrow_one(-1.0F - 3 * 0x1.0p-8F) == 0xbf82);
  CHECK(narrow_one(-0.0F) == 0x8000);
  CHECK(narrow_one(std::numeric_limits<float>::max()) == 0x7f80);  // to infinity
  CHECK(narrow_one(std::numeric_limits<float>::infinity()) == 0x7f80);
  CHECK(std::isnan(widen_one(narrow_one(std::bit_cast<float>(0x7f800001U)))));
}

TEST_CASE("bf16: narrowing is off by half of the last bit at most, on long arrays too") {
  const auto x = random<float>(150'001, 1);
  std::vector<bf16> narrowed(x.size());
  std::vector<float> back(x.size());
  narrow(narrowed, x);
  widen(back, narrowed);
  bool right = true;
  for (std::size_t i = 0; i < x.size(); ++i)
    right = right && std::abs(back[i] - x[i]) <= 0x1.0p-8F * std::abs(x[i]);
  CHECK(right);
}
