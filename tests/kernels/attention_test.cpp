#include "tests/kernels/attention_case.h"

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
    for (const Pair& lengths : {Pair{1, 1}, {9, 9}, {1, 11}, {6, 19}, {19, 6}, {16, 16}}) {
      for (AttentionOptions options : masks()) {
        CAPTURE(hkv);
        CAPTURE(lengths);
        CAPTURE(options.causal);
        AttentionCase<double> c = {.n = {2, lengths.queries, lengths.keys, 4, hkv, 5, 3}, .options = options};
        const auto expected = c.reference();
        check_close(c.run(Kernel::naive), expected);
        for (const Pair& tiles : {Pair{0, 0}, {1, 1}, {4, 4}, {3, 8}, {8, 3}}) {
          CAPTURE(tiles);
          c.options.tiles = {tiles.queries, tiles.keys};
          check_close(c.run(Kernel::flash), expected);
        }
      }
    }
  }
}

TEST_CASE("attention: flash equals naive on lengths of several default tiles") {
  for (const Pair& lengths : {Pair{300, 300}, {130, 301}, {301, 130}, {64, 128}, {65, 129}}) {
    for (const AttentionOptions& options : masks()) {
      CAPTURE(lengths);
      CAPTURE(options.causal);
      AttentionCase<double> c = {.n = {1, lengths.queries, lengths.keys, 6, 2, 24, 40}, .options = options};
      check_close(c.run(Kernel::flash), c.run(Kernel::naive));
    }
  }
}

TEST_CASE("attention: lse is the logarithm of the whole denominator, and scale replaces 1/√D") {
  AttentionCase<double> c = {.n = {1, 7, 5, 2, 1, 8, 4}, .options = {.scale = 3.5, .tiles = {2, 2}}};
  for (const Kernel kernel : kKernels) check_close(c.run(kernel), c.reference());
  c.options.scale = 0;  // all keys weigh the same
  for (const Kernel kernel : kKernels) {
    for (const double lse : c.run(kernel).lse) CHECK(lse == doctest::Approx(std::log(5.0)));
  }
}

TEST_CASE("attention: large scores do not overflow") {
  AttentionCase<float> c = {.n = {1, 9, 9, 1, 1, 8, 8}, .options = {.scale = 1e4, .tiles = {4, 4}}};
  for (const Kernel kernel : kKernels) {
    const auto r = c.run(kernel), expected = c.run(Kernel::naive);
    for (const float x : r.out) CHECK(std::isfinite(x));
    CHECK(difference(r.out, c.reference().out) < 1e-2);
    CHECK(difference(r.lse, expected.lse) < 1e-6);
  }
}

TEST_CASE("attention: a P of naive is 0 where a query sees nothing of the keys") {
  AttentionCase<double> c = {.n = {1, 150, 140, 2, 1, 4, 4}, .options = {.causal = true}};
  std::vector<double> out(c.dout.size()), lse(300), p(300 * 140, 7.0);
  kernels::naive_attention<double>(
      c.out_heads(out), lse, p, {.q = c.q_heads(c.q), .k = c.k_heads(c.k), .v = c.v_heads(c.v)}, c.options);
  for (Index row = 0; row < 300; ++row) {
    double sum = 0;
    for (Index j = 0; j < 140; ++j) {
      const double x = p[static_cast<std::size_t>(row * 140 + j)];
      if (j > row % 150 - 10) REQUIRE(x == 0);
      sum += x;
    }
    REQUIRE(sum == doctest::Approx(row % 150 < 10 ? 0 : 1));
  }
}

namespace {

// The errors of one kernel in f32, relative to the largest element of each tensor.
struct Errors {
  double out = 0, dq = 0, dk = 0, dv = 0;

  void raise_to(const AttentionResult<float>& r, const AttentionResult<double>& exact) {
    out = std::max(out, difference(r.out, exact.out));
    dq = std::max(dq, difference(r.dq, exact.dq));
    dk = std::max(dk, difference(r.dk, exact.dk));
    dv = std::max(dv, difference(r.dv, exact.dv));
  }
};

}  // namespace

TEST_CASE("attention: in f32 the error of flash is at most twice that of naive, thrice for gradients") {
  double worst_value = 0, worst_gradient = 0;
  for (const Pair& lengths : {Pair{113, 203}, {1, 239}, {3, 799}}) {
    for (const Index d : {32, 40, 59, 64, 80, 96, 111, 128, 256}) {
      for (const bool causal : {false, true}) {
        CAPTURE(lengths);
        CAPTURE(d);
        CAPTURE(causal);
        // How well one query comes out is luck, so the worst of some draws is compared.
        Errors naive, flash;
        for (Index draw = 0; draw < (lengths.queries < 10 ? 32 : 1); ++draw) {
          AttentionCase<float> c = {.n = {1, lengths.queries, lengths.keys, 2, 1, d, d},
                                    .options = {.causal = causal},
                                    .seed = static_cast<std::uint64_t>(10 * draw)};
          const auto exact = c.reference();
          naive.raise_to(c.run(Kernel::naive), exact);
          flash.raise_to(c.run(Kernel::flash), exact);
        }
        CHECK(flash.out <= 2 * naive.out);
        CHECK(flash.dq <= 3 * naive.dq);
        CHECK(flash.dk <= 3 * naive.dk);
        CHECK(flash.dv <= 3 * naive.dv);
        worst_value = std::max(worst_value, flash.out / naive.out);
        worst_gradient =
            std::max({worst_gradient, flash.dq / naive.dq, flash.dk / naive.dk, flash.dv / naive.dv});
      }
    }
  }
  MESSAGE("error of flash over error of naive: ", worst_value, " for values, ", worst_gradient,
          " for gradients");
}
