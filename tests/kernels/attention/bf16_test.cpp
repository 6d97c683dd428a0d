#include "tests/kernels/attention/attention_case.h"

using namespace tilegrad;
using namespace tilegrad::test;
using kernels::bf16;

namespace {

std::vector<bf16> narrowed(const std::vector<float>& x) {
  std::vector<bf16> y(x.size());
  kernels::narrow(y, x);
  return y;
}

std::vector<float> widened(const std::vector<bf16>& x) {
  std::vector<float> y(x.size());
  kernels::widen(y, x);
  return y;
}

// The nearest numbers that bf16 has.
void round(std::vector<float>& x) { x = widened(narrowed(x)); }

// A case in float whose q, k, v and dout are numbers that bf16 has, and the same in bf16.
struct BothOperands {
  Operands<float> wide;
  std::vector<bf16> q, k, v, dout;

  explicit BothOperands(const AttentionCase& c) : wide(c) {
    for (auto* x : {&wide.q, &wide.k, &wide.v, &wide.dout}) round(*x);
    q = narrowed(wide.q);
    k = narrowed(wide.k);
    v = narrowed(wide.v);
    dout = narrowed(wide.dout);
  }

  kernels::AttentionInputs<bf16> inputs() const {
    return wide.inputs().with<bf16>(q_heads(wide.n, q), k_heads(wide.n, k), v_heads(wide.n, v));
  }
};

// What the kernels write in bf16, widened, with what is float anyway.
AttentionResult<float> run_bf16(Kernel kernel, const AttentionCase& c, Write write = Write::overwrite,
                                float start = std::numeric_limits<float>::quiet_NaN()) {
  const BothOperands x(c);
  auto r = filled_result<float>(c, start);
  std::vector<bf16> out = narrowed(r.out), dq = narrowed(r.dq), dk = narrowed(r.dk), dv = narrowed(r.dv);
  const kernels::AttentionGrads<bf16> grads = {.dq = {q_heads(c.n, dq), write},
                                               .dk = {k_heads(c.n, dk), write},
                                               .dv = {v_heads(c.n, dv), write},
                                               .dbias = {pairs(c.n, c.bias.b, c.bias.h, r.dbias)},
                                               .dsinks = {r.dsinks}};
  const auto out_view = out_heads(c.n, out);
  const auto dout = out_heads(c.n, x.dout);
  if (kernel == Kernel::flash) {
    kernels::flash_attention<bf16>(out_view, r.lse, x.inputs(), c.options);
    kernels::flash_attention_backward<bf16>(grads, dout, x.inputs(), out_view, r.lse, c.options, x.wide.dlse);
  } else {
    std::vector<float> p(r.lse.size() * static_cast<std::size_t>(c.n.tk));
    kernels::naive_attention<bf16>(out_view, r.lse, p, x.inputs(), c.options);
    kernels::naive_attention_backward<bf16>(grads, dout, x.inputs(), p, c.options, r.lse, x.wide.dlse);
  }
  r.out = widened(out);
  r.dq = widened(dq);
  r.dk = widened(dk);
  r.dv = widened(dv);
  return r;
}

// The float kernels on the same numbers, each result rounded once; flash's backward reads the rounded out.
AttentionResult<float> run_float_and_round(Kernel kernel, const AttentionCase& c) {
  const BothOperands x(c);
  auto r = filled_result<float>(c, 0.0F);
  const auto in = x.wide.inputs();
  const auto dout = out_heads(c.n, x.wide.dout);
  if (kernel == Kernel::flash) {
    kernels::flash_attention<float>(out_heads(c.n, r.out), r.lse, in, c.options);
    round(r.out);
    kernels::flash_attention_backward<float>(grads_of(c, r), dout, in, out_heads(c.n, r.out), r.lse,
                                             c.options, x.wide.dlse);
  } else {
    run_views<float>(kernel, out_heads(c.n, r.out), r.lse, grads_of(c, r), dout, in, c.options, x.wide.dlse);
    round(r.out);
  }
  for (auto* grad : {&r.dq, &r.dk, &r.dv}) round(*grad);
  return r;
}

AttentionCase causal_case() {
  return random_case({.b = 2, .tq = 150, .tk = 150, .hq = 4, .hkv = 2, .d = 40, .dv = 24}, {.causal = true});
}

AttentionCase case_with_everything() {
  auto c = random_case({.b = 2, .tq = 90, .tk = 110, .hq = 4, .hkv = 2, .d = 20, .dv = 36},
                       {.window = {.left = 70, .right = 5}, .softcap = 3.0});
  add_bias(c, 1, 4);
  add_mask(c, 2, 1);
  add_alibi(c);
  add_sinks(c);
  add_dlse(c);
  add_dropout(c, .2);
  return c;
}

}  // namespace

TEST_CASE("attention in bf16: what float gives on the same numbers, rounded once, to the bit") {
  for (const Kernel kernel : kKernels) {
    CAPTURE(kernel);
    for (const AttentionCase& c : {causal_case(), case_with_everything()})
      CHECK(same_bits(run_bf16(kernel, c), run_float_and_round(kernel, c)));
  }
}

TEST_CASE("attention in bf16: rows that share a panel, keys in parts, one query") {
  const AttentionSizes few = {.b = 1, .tq = 5, .tk = 700, .hq = 6, .hkv = 2, .d = 33, .dv = 17};
  CHECK(same_bits(run_bf16(Kernel::flash, random_case(few)),
                  run_float_and_round(Kernel::flash, random_case(few))));
  // In float another kernel takes a single query, with sums in another order.
  const auto one = random_case({.b = 2, .tq = 1, .tk = 300, .hq = 4, .hkv = 2, .d = 64, .dv = 64});
  check_close(run_bf16(Kernel::flash, one), run_float_and_round(Kernel::flash, one), 0x1.0p-7);
}

TEST_CASE("attention in bf16: gradients are added to what is there") {
  const AttentionCase c = causal_case();
  for (const Kernel kernel : kKernels) {
    CAPTURE(kernel);
    const auto alone = run_bf16(kernel, c), added = run_bf16(kernel, c, Write::accumulate, 1.0F);
    const auto check_sum = [](const std::vector<float>& sum, const std::vector<float>& grad) {
      bool right = true;
      for (std::size_t i = 0; i < sum.size(); ++i)
        right = right && std::abs(sum[i] - (1 + grad[i])) <= 0x1.0p-7F * (std::abs(grad[i]) + 1);
      CHECK(right);
    };
    check_sum(added.dq, alone.dq);
    check_sum(added.dk, alone.dk);
    check_sum(added.dv, alone.dv);
  }
}

TEST_CASE("attention in bf16: errors are those of the storage") {
  const AttentionCase c = causal_case();
  const auto exact = run<double>(Kernel::naive, c);
  for (const Kernel kernel : kKernels) {
    CAPTURE(kernel);
    check_close(run_bf16(kernel, c), exact, .02);
    CHECK(difference(run_bf16(kernel, c).out, exact.out) > 1e-4);
  }
}
