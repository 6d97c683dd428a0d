#include "tilegrad/train/measure/attention_cost.h"

#include <doctest/doctest.h>

#include <vector>

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::train;

namespace {

// Pairs that query by query, key by key are seen.
Index counted_pairs(Index tq, Index tk, const AttentionOptions& o) {
  const Index offset = o.align == Align::bottom_right ? tk - tq : 0;
  Index pairs = 0;
  for (Index i = 0; i < tq; ++i) {
    for (Index j = 0; j < tk; ++j) {
      const bool left = !o.window.left || j >= i + offset - *o.window.left;
      const bool right = !o.window.right || j <= i + offset + *o.window.right;
      pairs += left && right && (!o.causal || j <= i + offset);
    }
  }
  return pairs;
}

}  // namespace

TEST_CASE("attention cost: pairs are those that causal and window leave") {
  const std::vector<AttentionOptions> cases = {{},
                                               {.causal = true},
                                               {.causal = true, .align = Align::top_left},
                                               {.window = {.left = 2, .right = 1}},
                                               {.align = Align::top_left, .window = {.right = 3}},
                                               {.causal = true, .window = {.left = 0}}};
  for (std::size_t i = 0; i < cases.size(); ++i) {
    CAPTURE(i);
    for (const Index tq : {1, 4, 9}) {
      for (const Index tk : {1, 5, 9})
        CHECK(visible_pairs(tq, tk, cases[i]) == counted_pairs(tq, tk, cases[i]));
    }
  }
  CHECK(visible_pairs(4096, 4096, {.causal = true}) == 4096 * 4097 / 2);
}

TEST_CASE("attention cost: operations are those of two products forward and five backward") {
  const AttentionSizes s = {
      .batch = 2, .heads = 4, .kv_heads = 2, .tq = 8, .tk = 16, .dim = 32, .pairs = 100};
  CHECK(attention_flops(s, Pass::forward) == 4.0 * 2 * 4 * 100 * 32);
  CHECK(attention_flops(s, Pass::backward) == 10.0 * 2 * 4 * 100 * 32);
}
