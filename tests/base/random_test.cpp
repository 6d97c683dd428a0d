#include "tilegrad/base/random.h"

#include <doctest/doctest.h>

#include <cmath>
#include <set>
#include <vector>

namespace tilegrad {
namespace {

// The known answers come with the paper's own library, Random123, which lists them as
// "philox4x32 10 <counter> <key> <output>".
TEST_CASE("random: gives the published answers of Philox4x32-10") {
  using Words = std::array<std::uint32_t, 4>;
  CHECK(RandomKey{0}.words(0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(RandomKey{~std::uint64_t{0}}.words(~std::uint64_t{0}, ~std::uint64_t{0}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  // Counter and key from the digits of pi, lowest word first.
  CHECK(RandomKey{0x299f31d0a4093822}.words(0x85a308d3243f6a88, 0x0370734413198a2e) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("random: a stream that starts at a position goes on as the one that reached it") {
  RandomStream whole(RandomKey{7});
  for (int i = 0; i < 5; ++i) whole.bits();
  RandomStream resumed(RandomKey{7}, whole.position());
  for (int i = 0; i < 20; ++i) CHECK(whole.bits() == resumed.bits());
}

TEST_CASE("random: uniform draws lie in [0, 1) with the moments of the uniform distribution") {
  RandomStream stream(RandomKey{1});
  constexpr int kDraws = 100000;
  double sum = 0, squares = 0;
  bool in_range = true;
  for (int i = 0; i < kDraws; ++i) {
    const double x = stream.uniform();
    in_range = in_range && x >= 0 && x < 1;
    sum += x;
    squares += x * x;
  }
  CHECK(in_range);
  // Five standard errors: sqrt(1/12) of one draw, sqrt(4/45) of its square.
  const double root = std::sqrt(kDraws);
  CHECK(std::abs(sum / kDraws - 1.0 / 2) < 5 * std::sqrt(1.0 / 12) / root);
  CHECK(std::abs(squares / kDraws - 1.0 / 3) < 5 * std::sqrt(4.0 / 45) / root);
}

TEST_CASE("random: normal draws have mean 0, variance 1 and fourth moment 3") {
  RandomStream stream(RandomKey{2});
  constexpr int kDraws = 100000;
  double sum = 0, squares = 0, fourth = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = stream.normal();
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
  }
  // Five standard errors; the variances of x, x² and x⁴ are 1, 2 and 105 − 9.
  const double root = std::sqrt(kDraws);
  CHECK(std::abs(sum / kDraws) < 5 / root);
  CHECK(std::abs(squares / kDraws - 1) < 5 * std::sqrt(2.0) / root);
  CHECK(std::abs(fourth / kDraws - 3) < 5 * std::sqrt(96.0) / root);
}

TEST_CASE("random: below(n) reaches every number under n equally often") {
  RandomStream stream(RandomKey{3});
  constexpr int kSides = 7, kDraws = 70000;
  std::array<int, kSides> seen{};
  for (int i = 0; i < kDraws; ++i) ++seen.at(stream.below(kSides));
  const double expected = double{kDraws} / kSides;
  for (const int count : seen) CHECK(std::abs(count - expected) < 5 * std::sqrt(expected));
  CHECK(stream.below(1) == 0);

  // Three quarters of 2^64: a plain remainder would draw the lower third of the numbers half of the time.
  constexpr std::uint64_t kThird = std::uint64_t{1} << 62;
  int low = 0;
  for (int i = 0; i < 9000; ++i) low += stream.below(3 * kThird) < kThird ? 1 : 0;
  CHECK(std::abs(low - 3000) < 5 * std::sqrt(9000 * (1.0 / 3) * (2.0 / 3)));
}

TEST_CASE("random: folded keys all differ, from each other and from their parent's draws") {
  const RandomKey key{42};
  std::set<std::uint64_t> values = {key.value};
  RandomStream draws(key);
  constexpr std::uint64_t kParts = 1000;
  for (std::uint64_t part = 0; part < kParts; ++part) {
    values.insert(key.fold(part).value);
    values.insert(draws.bits());
  }
  CHECK(values.size() == 2 * kParts + 1);
  CHECK(key.fold(1).fold(2) != key.fold(2).fold(1));
  CHECK(key.fold(5) == RandomKey{42}.fold(5));
}

TEST_CASE("random: streams of neighbouring keys are uncorrelated") {
  RandomStream a(RandomKey{9}.fold(0)), b(RandomKey{9}.fold(1));
  constexpr int kDraws = 50000;
  double sum = 0;
  for (int i = 0; i < kDraws; ++i) sum += (a.uniform() - 0.5) * (b.uniform() - 0.5);
  CHECK(std::abs(sum / kDraws) < 5 * (1.0 / 12) / std::sqrt(kDraws));
}

}  // namespace
}  // namespace tilegrad
