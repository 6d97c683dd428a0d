#include "tilegrad/train/measure/attention_cost.h"

#include <doctest/doctest.h>

#include <vector>

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::train;

namespace {

// Visible pairs, query by query and key by key.
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
  AttentionProblem p = {.batch = 2, .heads = 4, .kv_heads = 2, .tq = 8, .tk = 16, .head_size = 32};
  CHECK(attention_flops(p, Phase::forward) == 4.0 * 2 * 4 * (8 * 16) * 32);
  CHECK(attention_flops(p, Phase::backward) == 10.0 * 2 * 4 * (8 * 16) * 32);
  p.options.causal = true;  // the queries stand at the end: 9 + ... + 16 keys
  CHECK(attention_flops(p, Phase::forward) == 4.0 * 2 * 4 * 100 * 32);
}

TEST_CASE("attention cost: bytes follow the formulas") {
  AttentionProblem p = {
      .batch = 2, .heads = 4, .kv_heads = 2, .tq = 8, .tk = 16, .head_size = 32, .options = {.causal = true}};
  const double pairs = 2 * 4 * 100;
  const double tensors = 2.0 * (4 * 8 + 2 * 16) * 32;  // q or out, and k or v
  const auto moved = [&](AttentionKernel kernel, Phase phase, Dtype dtype) {
    p.dtype = dtype;
    return moved_bytes(p, kernel, phase, 4096);
  };
  CHECK(moved(AttentionKernel::naive, Phase::forward, Dtype::f32) == 4 * (2 * tensors + 4 * pairs));
  CHECK(moved(AttentionKernel::naive, Phase::backward, Dtype::f32) == 4 * (4 * tensors + 7 * pairs));
  CHECK(moved(AttentionKernel::flash, Phase::forward, Dtype::f32) ==
        4 * (2 * tensors + 2 * pairs * 32 * 32 / 1024.0));
  CHECK(moved(AttentionKernel::flash, Phase::backward, Dtype::f64) ==
        8 * (4 * tensors + 4 * pairs * 32 * 32 / 512.0));
  // Tensors of two bytes an element, scores and sums of four.
  CHECK(moved(AttentionKernel::naive, Phase::forward, Dtype::bf16) == 2 * 2 * tensors + 4 * 4 * pairs);
  CHECK(moved(AttentionKernel::flash, Phase::backward, Dtype::bf16) ==
        2 * 4 * tensors + (2 * 2 + 2 * 4) * pairs * 32 * 32 / 1024.0);
}
