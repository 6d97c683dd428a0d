#include "tilegrad/base/memory.h"

#include "tests/kernels/attention/attention_case.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

constexpr int kThreads = 3;

// Bytes that forward and backward of flash take for themselves at the highest point. The tensors of a case
// are no tensors of the library and do not count.
Index workspace(const AttentionCase& c, AttentionResult<float>& r, const Operands<float>& x) {
  const kernels::ThreadScope scope(kThreads);
  const Index before = memory::usage().live;
  memory::reset_peak();
  run_views<float>(Kernel::flash, out_heads(c.n, r.out), r.lse, grads_of(c, r), out_heads(c.n, x.dout),
                   x.inputs(), c.options, x.dlse);
  return memory::usage().peak - before;
}
Index workspace(const AttentionCase& c) {
  auto r = filled_result<float>(c, 0);
  return workspace(c, r, Operands<float>(c));
}

// A tile with all that belongs to it, for each thread, and one number for each row.
Index bound(const AttentionSizes& n, Index tile) {
  constexpr Index kConstant = 8;
  return static_cast<Index>(sizeof(float)) *
         (kConstant * kThreads * tile * (n.d + n.dv + tile) + n.b * n.hq * n.tq);
}

// The same few thousand numbers again and again: millions of random ones would take longer than the kernels.
std::vector<float> periodic(Index n, std::uint64_t seed) {
  const auto period = random<float>(4099, seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = period[i % period.size()];
  return x;
}

}  // namespace

TEST_CASE("attention: the memory of flash is that of a tile for each thread, and a number for each row") {
  for (const Index tile : {32, 64}) {
    for (const AttentionSizes& n :
         {AttentionSizes{1, 300, 300, 2, 1, 32, 32}, AttentionSizes{1, 600, 100, 4, 2, 64, 16},
          AttentionSizes{1, 5, 3000, 2, 2, 16, 64}, AttentionSizes{1, 700, 700, 1, 1, 8, 8}}) {
      AttentionCase c = random_case(n, {.causal = true, .tiles = {tile, tile}});
      CAPTURE(tile);
      CAPTURE(n.tq);
      CHECK(workspace(c) <= bound(n, tile));
      add_dropout(c, 0.1);
      c.options.softcap = 2.0;
      CHECK(workspace(c) <= bound(n, tile));
    }
  }
}

TEST_CASE("attention: with twice the length flash needs one more number for each new row") {
  for (const Index t : {512, 1024}) {
    const AttentionOptions options = {.causal = true, .window = {.left = 30}, .tiles = {64, 64}};
    const AttentionCase once = random_case({1, t, t, 2, 1, 16, 16}, options),
                        twice = random_case({1, 2 * t, 2 * t, 2, 1, 16, 16}, options);
    const Index grown = workspace(twice) - workspace(once);
    CHECK(grown == 2 * t * static_cast<Index>(sizeof(float)));
  }
}

TEST_CASE("attention: a length of 131072 runs forward and backward in little memory" *
          doctest::test_suite("slow")) {
  constexpr Index t = 131072, d = 64, tile = 32, left = 7, last = 50;
  AttentionCase c = {.n = {1, t, t, 1, 1, d, d},
                     .options = {.causal = true, .window = {.left = left}, .tiles = {tile, tile}}};
  Operands<float> x(c);
  x.q = periodic(t * d, 1), x.k = periodic(t * d, 2), x.v = periodic(t * d, 3), x.dout = periodic(t * d, 4);
  auto r = filled_result<float>(c, std::numeric_limits<float>::quiet_NaN());
  CHECK(workspace(c, r, x) <= bound(c.n, tile));

  // The last queries see the last keys alone, so that plain loops over these say what they must be.
  const auto tail = [](const std::vector<float>& y, Index rows) {
    return std::vector<double>(y.end() - rows * d, y.end());
  };
  AttentionCase end = {.n = {1, last, last + left, 1, 1, d, d}, .options = c.options};
  end.q = tail(x.q, last), end.k = tail(x.k, last + left), end.v = tail(x.v, last + left);
  end.dout = tail(x.dout, last);
  const auto expected = reference(end);
  CHECK(difference(tail(r.out, last), expected.out) <= 1e-5);
  CHECK(difference(tail(r.dq, last), expected.dq) <= 1e-5);
  // Keys that none of the earlier queries see.
  const auto own = [](const std::vector<double>& y) {
    return std::vector<double>(y.end() - last * d, y.end());
  };
  CHECK(difference(tail(r.dk, last), own(expected.dk)) <= 1e-5);
  CHECK(difference(tail(r.dv, last), own(expected.dv)) <= 1e-5);
}
