#include "tilegrad/train/measure/statistics.h"

#include <doctest/doctest.h>

#include "tilegrad/base/random.h"

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

TEST_CASE(
    "statistics: a comparison looked at again and again is decided by clear majorities, at the looks alone") {
  const std::vector<double> low(24, 1), high(24, 2);
  const auto after_losses = [&](std::initializer_list<std::size_t> lost, std::size_t pairs) {
    std::vector<double> a(low.begin(), low.begin() + static_cast<std::ptrdiff_t>(pairs));
    for (const std::size_t i : lost) a[i] = 3;
    return sequential_sign_test(a, high, kRoundLooks);
  };
  CHECK(after_losses({}, 5) == Verdict::not_distinguishable);
  CHECK(after_losses({}, 6) == Verdict::less);
  CHECK(sequential_sign_test(high, low, kRoundLooks) == Verdict::greater);
  // One of the first six is lost: nothing until 12, of which 11 are enough, and 10 are not.
  CHECK(after_losses({0}, 11) == Verdict::not_distinguishable);
  CHECK(after_losses({0}, 12) == Verdict::less);
  CHECK(after_losses({0, 1}, 12) == Verdict::not_distinguishable);
  // 19 of 24 are enough, and 18 are not.
  CHECK(after_losses({0, 2, 4, 6, 8}, 24) == Verdict::less);
  CHECK(after_losses({0, 2, 4, 6, 8, 10}, 24) == Verdict::not_distinguishable);
  // What came after the decision changes nothing.
  CHECK(after_losses({6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, 24) == Verdict::less);
}

namespace {

struct Outcomes {
  double decided = 0;     // share of the comparisons
  double mean_pairs = 0;  // until the decision or the last look
};

// Many comparisons in which a is less with this probability, ended at the first look at which they are decided.
Outcomes simulate(double probability) {
  constexpr int kComparisons = 20000;
  tilegrad::RandomStream stream(tilegrad::RandomKey{7});
  Outcomes outcomes;
  for (int n = 0; n < kComparisons; ++n) {
    std::vector<double> a, b;
    Verdict verdict = Verdict::not_distinguishable;
    for (const std::size_t look : kRoundLooks) {
      for (b.resize(look, 1); a.size() < look;) a.push_back(stream.uniform() < probability ? 0 : 2);
      verdict = sequential_sign_test(a, b, kRoundLooks);
      if (verdict != Verdict::not_distinguishable) break;
    }
    outcomes.decided += verdict != Verdict::not_distinguishable;
    outcomes.mean_pairs += static_cast<double>(a.size());
  }
  return {outcomes.decided / kComparisons, outcomes.mean_pairs / kComparisons};
}

}  // namespace

TEST_CASE(
    "statistics: looking up to three times finds a difference between equals in at most 5 % of all cases") {
  const Outcomes equals = simulate(0.5);
  CHECK(equals.decided <= 0.05);
  CHECK(equals.decided > 0.03);  // or the level is wasted
  CHECK(equals.mean_pairs > 22);
}

TEST_CASE("statistics: a true difference ends a comparison early") {
  const Outcomes clear = simulate(0.97);
  CHECK(clear.decided > 0.99);
  CHECK(clear.mean_pairs < 8);
  CHECK(simulate(0.85).decided > 0.75);
}

TEST_CASE("statistics: the lasting win begins after the last loss") {
  CHECK(first_lasting_win({false, true, false, true, true}) == 3);
  CHECK(first_lasting_win({true, true}) == 0);
  CHECK_FALSE(first_lasting_win({true, false}).has_value());
  CHECK_FALSE(first_lasting_win({}).has_value());
}
