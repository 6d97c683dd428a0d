#include "tests/kernels/attention/attention_case.h"
#include "tests/kernels/simd_targets.h"

using namespace tilegrad;
using namespace tilegrad::test;
using kernels::bf16;
using kernels::f16;

namespace {

template <class S>
std::vector<S> narrowed(const std::vector<float>& x) {
  std::vector<S> y(x.size());
  kernels::narrow(y, x);
  return y;
}

template <class S>
std::vector<float> widened(const std::vector<S>& x) {
  std::vector<float> y(x.size());
  kernels::widen(y, x);
  return y;
}

// The nearest numbers that S has.
template <class S>
void round(std::vector<float>& x) {
  x = widened(narrowed<S>(x));
}

// A case in float whose q, k, v and dout are numbers that S has, and the same in S.
template <class S>
struct BothOperands {
  Operands<float> wide;
  std::vector<S> q, k, v, dout;

  explicit BothOperands(const AttentionCase& c) : wide(c) {
    for (auto* x : {&wide.q, &wide.k, &wide.v, &wide.dout}) round<S>(*x);
    q = narrowed<S>(wide.q);
    k = narrowed<S>(wide.k);
    v = narrowed<S>(wide.v);
    dout = narrowed<S>(wide.dout);
  }

  kernels::AttentionInputs<S> inputs() const {
    return wide.inputs().template with<S>(q_heads(wide.n, q), k_heads(wide.n, k), v_heads(wide.n, v));
  }
};

// What the kernels write in S, widened, with what is float anyway.
template <class S>
AttentionResult<float> run_narrow(Kernel kernel, const AttentionCase& c, Write write = Write::overwrite,
                                  float start = std::numeric_limits<float>::quiet_NaN()) {
  const BothOperands<S> x(c);
  auto r = filled_result<float>(c, start);
  std::vector<S> out = narrowed<S>(r.out), dq = narrowed<S>(r.dq), dk = narrowed<S>(r.dk),
                 dv = narrowed<S>(r.dv);
  const kernels::AttentionGrads<S> grads = {.dq = {q_heads(c.n, dq), write},
                                            .dk = {k_heads(c.n, dk), write},
                                            .dv = {v_heads(c.n, dv), write},
                                            .dbias = {pairs(c.n, c.bias.b, c.bias.h, r.dbias)},
                                            .dsinks = {r.dsinks}};
  const auto out_view = out_heads(c.n, out);
  const auto dout = out_heads(c.n, x.dout);
  if (kernel == Kernel::flash) {
    kernels::flash_attention<S>(out_view, r.lse, x.inputs(), c.options);
    kernels::flash_attention_backward<S>(grads, dout, x.inputs(), out_view, r.lse, c.options, x.wide.dlse);
  } else {
    std::vector<float> p(r.lse.size() * static_cast<std::size_t>(c.n.tk));
    kernels::naive_attention<S>(out_view, r.lse, p, x.inputs(), c.options);
    kernels::naive_attention_backward<S>(grads, dout, x.inputs(), p, c.options, r.lse, x.wide.dlse);
  }
  r.out = widened(out);
  r.dq = widened(dq);
  r.dk = widened(dk);
  r.dv = widened(dv);
  return r;
}

// The float kernels on the same numbers, each result rounded once; flash's backward reads the rounded out.
template <class S>
AttentionResult<float> run_float_and_round(Kernel kernel, const AttentionCase& c) {
  const BothOperands<S> x(c);
  auto r = filled_result<float>(c, 0.0F);
  const auto in = x.wide.inputs();
  const auto dout = out_heads(c.n, x.wide.dout);
  if (kernel == Kernel::flash) {
    kernels::flash_attention<float>(out_heads(c.n, r.out), r.lse, in, c.options);
    round<S>(r.out);
    kernels::flash_attention_backward<float>(grads_of(c, r), dout, in, out_heads(c.n, r.out), r.lse,
                                             c.options, x.wide.dlse);
  } else {
    run_views<float>(kernel, out_heads(c.n, r.out), r.lse, grads_of(c, r), dout, in, c.options, x.wide.dlse);
    round<S>(r.out);
  }
  for (auto* grad : {&r.dq, &r.dk, &r.dv}) round<S>(*grad);
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

TEST_CASE_TEMPLATE("narrow attention: what float gives on the same numbers, rounded once, to the bit", S,
                   bf16, f16) {
  for (const Kernel kernel : kKernels) {
    CAPTURE(kernel);
    for (const AttentionCase& c : {causal_case(), case_with_everything()})
      CHECK(same_bits(run_narrow<S>(kernel, c), run_float_and_round<S>(kernel, c)));
  }
}

TEST_CASE_TEMPLATE("narrow attention: flash on each SIMD target is flash in float there, rounded", S, bf16,
                   f16) {
  const auto c =
      random_case({.b = 1, .tq = 37, .tk = 51, .hq = 2, .hkv = 1, .d = 21, .dv = 13}, {.causal = true});
  on_each_target(
      [&] { CHECK(same_bits(run_narrow<S>(Kernel::flash, c), run_float_and_round<S>(Kernel::flash, c))); });
}

TEST_CASE_TEMPLATE("narrow attention: rows that share a panel, keys in parts, one query", S, bf16, f16) {
  const AttentionSizes few = {.b = 1, .tq = 5, .tk = 700, .hq = 6, .hkv = 2, .d = 33, .dv = 17};
  CHECK(same_bits(run_narrow<S>(Kernel::flash, random_case(few)),
                  run_float_and_round<S>(Kernel::flash, random_case(few))));
  // In float another kernel takes a single query, with sums in another order.
  const auto one = random_case({.b = 2, .tq = 1, .tk = 300, .hq = 4, .hkv = 2, .d = 64, .dv = 64});
  check_close(run_narrow<S>(Kernel::flash, one), run_float_and_round<S>(Kernel::flash, one), 0x1.0p-7);
}

TEST_CASE_TEMPLATE("narrow attention: gradients are added to what is there", S, bf16, f16) {
  const AttentionCase c = causal_case();
  for (const Kernel kernel : kKernels) {
    CAPTURE(kernel);
    const auto alone = run_narrow<S>(kernel, c), added = run_narrow<S>(kernel, c, Write::accumulate, 1.0F);
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

TEST_CASE_TEMPLATE("narrow attention: errors are those of the storage", S, bf16, f16) {
  const AttentionCase c = causal_case();
  const auto exact = run<double>(Kernel::naive, c);
  const double bits = std::is_same_v<S, bf16> ? 1 : 8;  // f16 has three more
  for (const Kernel kernel : kKernels) {
    CAPTURE(kernel);
    check_close(run_narrow<S>(kernel, c), exact, .02 / bits);
    CHECK(difference(run_narrow<S>(kernel, c).out, exact.out) > 1e-4 / bits);
  }
}

namespace {

// Attention of each query to one key of its own, so that out is v: what a kernel reads and writes of `v`.
template <class S>
std::vector<S> copied_by(Kernel kernel, const std::vector<S>& v) {
  constexpr Index kSize = 64;
  const Index batch = std::ssize(v) / kSize;
  const std::vector<S> q(v.size()), k(v.size());
  std::vector<S> out(v.size());
  std::vector<float> lse(v.size() / kSize), p(lse.size());
  const auto heads = [&](auto& x) { return HeadsView(x.data(), batch, Index{1}, Index{1}, kSize); };
  const kernels::AttentionInputs<S> in = {.q = heads(q), .k = heads(k), .v = heads(v)};
  if (kernel == Kernel::flash) {
    kernels::flash_attention<S>(heads(out), lse, in, {});
  } else {
    kernels::naive_attention<S>(heads(out), lse, p, in, {});
  }
  return out;
}

// dv of one key that `queries` queries see, of which each has a dout of `dout` everywhere.
template <class S>
std::vector<float> dv_of(Kernel kernel, Index queries, float dout) {
  auto c = random_case({.b = 1, .tq = queries, .tk = 1, .hq = 1, .hkv = 1, .d = 5, .dv = 19});
  c.q.assign(c.q.size(), 0);  // so that every probability is 1, to the bit
  c.dout.assign(c.dout.size(), dout);
  return run_narrow<S>(kernel, c).dv;
}

}  // namespace

TEST_CASE_TEMPLATE("narrow attention: all 65536 numbers pass through the kernels on each SIMD target", S,
                   bf16, f16) {
  std::vector<S> all(65536);
  for (std::size_t i = 0; i < all.size(); ++i) all[i].bits = static_cast<std::uint16_t>(i);
  on_each_target([&] {
    for (const Kernel kernel : kKernels) {
      CAPTURE(kernel);
      const auto copies = copied_by(kernel, all);
      int wrong = 0;
      for (std::size_t i = 0; i < all.size(); ++i) {
        const float from = kernels::widen(all[i]), to = kernels::widen(copies[i]);
        wrong += std::isnan(from) ? !std::isnan(to) : from != to;
      }
      CHECK(wrong == 0);
    }
  });
}

TEST_CASE("attention in f16: sums between two neighbours are rounded to even on each SIMD target") {
  // dv of two queries is the sum of their dout. From 2048 on f16 has the even numbers only.
  const AttentionSizes n = {.b = 1, .tq = 2, .tk = 1, .hq = 1, .hkv = 1, .d = 3, .dv = 19};
  auto c = random_case(n);
  c.q.assign(c.q.size(), 0);  // so that every probability is 1, to the bit
  for (std::size_t i = 0; i < 19; ++i) {
    c.dout[i] = i % 2 == 0 ? 2048 : -2050;
    c.dout[19 + i] = i % 2 == 0 ? 1 : -1;
  }
  on_each_target([&] {
    const auto dv = run_narrow<f16>(Kernel::flash, c).dv;
    for (std::size_t i = 0; i < 19; ++i) CHECK(dv[i] == (i % 2 == 0 ? 2048 : -2052));
  });
}

TEST_CASE("attention in f16: a gradient that overflows is Inf, and is counted where it is stored") {
  on_each_target([] {
    for (const Kernel kernel : kKernels) {
      CAPTURE(kernel);
      const Index before = kernels::overflow_count();
      CHECK(dv_of<f16>(kernel, 2, 32752) == std::vector<float>(19, 65504));
      CHECK(kernels::overflow_count() == before);
      CHECK(dv_of<f16>(kernel, 2, -32768) == std::vector<float>(19, -std::numeric_limits<float>::infinity()));
      CHECK(kernels::overflow_count() == before + 19);
      CHECK(dv_of<bf16>(kernel, 2, -32768) == std::vector<float>(19, -65536));
      CHECK(kernels::overflow_count() == before + 19);
    }
  });
}
