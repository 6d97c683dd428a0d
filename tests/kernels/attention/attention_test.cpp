#include <ostream>

#include "tests/kernels/attention/attention_case.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

// Lengths or tile sizes.
struct Pair {
  Index queries, keys;
};
std::ostream& operator<<(std::ostream& s, const Pair& pair) {
  return s << pair.queries << " x " << pair.keys;
}

// Full, and causal in both alignments.
std::vector<AttentionOptions> masks() {
  return {{}, {.causal = true}, {.causal = true, .align = Align::top_left}};
}

}  // namespace

TEST_CASE("attention: naive and flash equal plain loops for all heads, masks, lengths and tiles") {
  for (const Index hkv : {4, 2, 1}) {
    for (const Pair& lengths : {Pair{1, 1}, {9, 9}, {1, 11}, {11, 1}, {6, 19}, {19, 6}, {16, 16}}) {
      for (const AttentionOptions& options : masks()) {
        CAPTURE(hkv);
        CAPTURE(lengths);
        CAPTURE(options.causal);
        AttentionCase c = random_case({2, lengths.queries, lengths.keys, 4, hkv, 5, 3}, options);
        const auto expected = reference(c);
        check_close(run(Kernel::naive, c), expected);
        for (const Pair& tiles : {Pair{0, 0}, {1, 1}, {4, 4}, {3, 8}, {8, 3}}) {
          CAPTURE(tiles);
          c.options.tiles = {tiles.queries, tiles.keys};
          check_close(run(Kernel::flash, c), expected);
        }
      }
    }
  }
}

TEST_CASE("attention: naive and flash equal plain loops for head sizes from 1 to 512, and Dv other than D" *
          doctest::test_suite("slow")) {
  for (const Index d : {1, 2, 7, 16, 31, 65, 128, 255, 257, 512}) {
    for (const Index dv : {Index{1}, d, 513 - d}) {
      for (const Pair& lengths : {Pair{1, 37}, {37, 1}, {3, 70}, {37, 70}}) {
        const AttentionCase c =
            random_case({1, lengths.queries, lengths.keys, 3, 1, d, dv}, {.causal = d % 2 == 1});
        const auto expected = reference(c);
        for (const Kernel kernel : kKernels) {
          CAPTURE(kernel);
          CAPTURE(lengths);
          CAPTURE(d);
          CAPTURE(dv);
          check_close(run(kernel, c), expected);
        }
      }
    }
  }
}

TEST_CASE("attention: flash equals naive on lengths of several default tiles" * doctest::test_suite("slow")) {
  for (const Pair& lengths : {Pair{300, 300}, {130, 301}, {301, 130}, {64, 128}, {65, 129}}) {
    for (const AttentionOptions& options : masks()) {
      CAPTURE(lengths);
      CAPTURE(options.causal);
      const AttentionCase c = random_case({1, lengths.queries, lengths.keys, 6, 2, 24, 40}, options);
      check_close(run(Kernel::flash, c), run(Kernel::naive, c));
    }
  }
}

TEST_CASE("attention: nothing to do, for want of batch rows, queries or keys") {
  for (const AttentionSizes& n : {AttentionSizes{0, 5, 6, 2, 1, 4, 3}, AttentionSizes{2, 0, 6, 2, 1, 4, 3},
                                  AttentionSizes{2, 5, 0, 2, 1, 4, 3}}) {
    AttentionCase c = random_case(n, {.causal = true});
    add_sinks(c);
    for (const Kernel kernel : kKernels) {
      CAPTURE(kernel);
      CAPTURE(n.b);
      CAPTURE(n.tq);
      check_close(run(kernel, c), reference(c));
    }
  }
}

TEST_CASE("attention: lse is the logarithm of the whole denominator, and scale replaces 1/√D") {
  AttentionCase c = random_case({1, 7, 5, 2, 1, 8, 4}, {.scale = 3.5, .tiles = {2, 2}});
  for (const Kernel kernel : kKernels) check_close(run(kernel, c), reference(c));
  c.options.scale = 0;  // all keys weigh the same
  for (const Kernel kernel : kKernels) {
    for (const double lse : run(kernel, c).lse) CHECK(lse == doctest::Approx(std::log(5.0)));
  }
}

TEST_CASE("attention: large scores do not overflow") {
  const AttentionCase c = random_case({1, 9, 9, 1, 1, 8, 8}, {.scale = 1e4, .tiles = {4, 4}});
  const auto exact = reference(c);
  for (const Kernel kernel : kKernels) {
    const auto r = run<float>(kernel, c), expected = run<float>(Kernel::naive, c);
    for (const float x : r.out) CHECK(std::isfinite(x));
    CHECK(difference(r.out, exact.out) < 1e-2);
    CHECK(difference(r.lse, expected.lse) < 1e-6);
  }
}

TEST_CASE("attention: a P of naive is 0 where a query sees nothing of the keys") {
  const AttentionCase c = random_case({1, 150, 140, 2, 1, 4, 4}, {.causal = true});
  const Operands<double> x(c);
  std::vector<double> out(c.dout.size()), lse(300), p(300 * 140, 7.0);
  kernels::naive_attention<double>(out_heads(c.n, out), lse, p, x.inputs(), c.options);
  for (Index row = 0; row < 300; ++row) {
    double sum = 0;
    for (Index j = 0; j < 140; ++j) {
      const double probability = p[static_cast<std::size_t>(row * 140 + j)];
      if (j > row % 150 - 10) REQUIRE(probability == 0);
      sum += probability;
    }
    REQUIRE(sum == doctest::Approx(row % 150 < 10 ? 0 : 1));
  }
}
