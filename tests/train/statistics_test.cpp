#include "tilegrad/train/measure/statistics.h"

#include <doctest/doctest.h>

using namespace tilegrad::train;

TEST_CASE("statistics: median and quartiles, in whatever order the values come") {
  const Quartiles q = quartiles({5, 1, 4, 2, 3});
  CHECK(q.first == 2);
  CHECK(q.median == 3);
  CHECK(q.third == 4);
  CHECK(quartiles({7}).first == 7);
  CHECK(quartiles({7}).third == 7);
  CHECK(quartiles({}).third == 0);
}

TEST_CASE("statistics: the median of two values is the upper one, of none it is 0") {
  CHECK(median({2, 1}) == 2);
  CHECK(median({4, 1, 3, 2}) == 3);
  CHECK(median({}) == 0);
}

TEST_CASE("statistics: the sign test needs a clear majority of enough pairs") {
  const std::vector<double> low(9, 1), high(9, 2);
  CHECK(sign_test(low, high) == Verdict::less);
  CHECK(sign_test(high, low) == Verdict::greater);
  CHECK(sign_test(low, low) == Verdict::not_distinguishable);
  CHECK(sign_test({}, {}) == Verdict::not_distinguishable);
  // All of six is enough, with P = 2 / 2^6 = 3.1 %; all of five is not, with 6.2 %.
  const std::span<const double> a = low, b = high;
  CHECK(sign_test(a.first(6), b) == Verdict::less);
  CHECK(sign_test(a.first(5), b) == Verdict::not_distinguishable);
  // Eight of nine are enough, with 2 (1 + 9) / 2^9 = 3.9 %; seven are not, with 18 %.
  std::vector<double> mixed = low;
  mixed[4] = 3;
  CHECK(sign_test(mixed, high) == Verdict::less);
  mixed[5] = 3;
  CHECK(sign_test(mixed, high) == Verdict::not_distinguishable);
}

TEST_CASE("statistics: the sign test decides on thousands of pairs") {
  std::vector<double> a(5000, 1);
  const std::vector<double> b(5000, 2);
  CHECK(sign_test(a, b) == Verdict::less);
  for (std::size_t i = 0; i < 2480; ++i) a[i] = 3;
  CHECK(sign_test(a, b) == Verdict::not_distinguishable);
}

TEST_CASE("statistics: the lasting win begins after the last loss") {
  CHECK(first_lasting_win({false, true, false, true, true}) == 3);
  CHECK(first_lasting_win({true, true}) == 0);
  CHECK_FALSE(first_lasting_win({true, false}).has_value());
  CHECK_FALSE(first_lasting_win({}).has_value());
}
