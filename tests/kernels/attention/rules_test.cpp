#include <utility>

#include "tests/kernels/attention/attention_case.h"
#include "tilegrad/kernels/attention/row_ops.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

// The gradients of q, k and v, and the inputs that they belong to.
constexpr std::pair<std::vector<double> AttentionCase::*, std::vector<double> AttentionResult<double>::*>
    kGradients[] = {{&AttentionCase::q, &AttentionResult<double>::dq},
                    {&AttentionCase::k, &AttentionResult<double>::dk},
                    {&AttentionCase::v, &AttentionResult<double>::dv}};

// Heads in a larger buffer: what lies between them must stay as it is.
struct HeadsWithGaps {
  static constexpr double kGap = 1234.5;
  std::vector<double> buffer;
  HeadsView<double> view;

  // Every head is followed by 3 elements that belong to nobody, every position by `gap`, every batch row by 7.
  HeadsWithGaps(HeadsView<const double> x, Index gap) {
    const Index stride_h = x.dim + 3, stride_t = x.heads * stride_h + gap, stride_b = x.time * stride_t + 7;
    buffer.assign(static_cast<std::size_t>(x.batch * stride_b), kGap);
    view = HeadsView<double>(buffer.data(), x.batch, x.time, x.heads, x.dim, stride_b, stride_t, stride_h);
    each([&, at = x.data](double& y) mutable { y = *at++; });
  }
  HeadsWithGaps(const HeadsWithGaps&) = delete;
  HeadsWithGaps& operator=(const HeadsWithGaps&) = delete;

  template <class F>
  void each(F&& f) {
    for (Index b = 0; b < view.batch; ++b)
      for (Index t = 0; t < view.time; ++t)
        for (Index h = 0; h < view.heads; ++h)
          for (Index d = 0; d < view.dim; ++d) f(view.head(b, h)(t, d));
  }

  // The values; afterwards every place of the buffer is a gap.
  std::vector<double> take() {
    std::vector<double> values;
    each([&](double& x) { values.push_back(std::exchange(x, kGap)); });
    return values;
  }
};

}  // namespace

TEST_CASE("attention: dropout is the same in both kernels and both passes, for any tiles") {
  AttentionCase c = random_case({2, 13, 18, 4, 2, 6, 5}, {.causal = true});
  add_dropout(c, 0.3);
  const auto expected = reference(c);
  check_close(run(Kernel::naive, c), expected);
  for (const auto& [queries, keys] : {std::pair<Index, Index>{0, 0}, {4, 4}, {5, 3}, {1, 7}}) {
    c.options.tiles = {queries, keys};
    check_close(run(Kernel::flash, c), expected);
  }
}

TEST_CASE("attention: dropout keeps a probability with chance 1 - p, and lse does not know of it") {
  // Equal scores and values of one: out is the kept share of the keys over 1 − p.
  AttentionCase c = random_case({1, 64, 1000, 2, 1, 4, 1}, {.scale = 0});
  add_dropout(c, 0.25);
  c.v.assign(c.v.size(), 1.0);
  for (const Kernel kernel : kKernels) {
    const auto r = run(kernel, c);
    double mean = 0;
    for (const double x : r.out) mean += x / static_cast<double>(r.out.size());
    CHECK(mean == doctest::Approx(1).epsilon(0.01));  // the standard deviation is 0.0016
    CHECK(r.out[0] != r.out[1]);
    for (const double lse : r.lse) CHECK(lse == doctest::Approx(std::log(1000.0)));
  }
}

TEST_CASE("attention: with dropout the gradients match finite differences") {
  AttentionCase c = random_case({1, 4, 5, 2, 1, 3, 2}, {.causal = true, .tiles = {2, 3}});
  add_dropout(c, 0.4);
  for (const Kernel kernel : kKernels) {
    const auto loss = [&] {  // ⟨dout, out⟩
      double sum = 0;
      const auto out = run(kernel, c).out;
      for (std::size_t i = 0; i < out.size(); ++i) sum += c.dout[i] * out[i];
      return sum;
    };
    const auto analytic = run(kernel, c);
    for (const auto& [input, gradient] : kGradients) {
      for (std::size_t i = 0; i < (c.*input).size(); ++i) {
        constexpr double h = 1e-3;
        double& x = (c.*input)[i];
        const double x0 = x;
        const auto slope = [&](double step) {
          x = x0 + step;
          const double above = loss();
          x = x0 - step;
          return (above - loss()) / (2 * step);
        };
        const double numeric = (4 * slope(h) - slope(2 * h)) / 3;  // fourth order in h
        x = x0;
        const double g = (analytic.*gradient)[i];
        CHECK(std::abs(numeric - g) <= 1e-9 * (1 + std::abs(g)));
      }
    }
  }
}

// Far apart, tiles of flash are copied before they are read.
TEST_CASE("attention: heads with gaps between them give the same, and the gaps stay untouched") {
  AttentionCase c = random_case({2, 9, 14, 4, 2, 6, 5}, {.causal = true, .tiles = {4, 4}});
  const auto& n = c.n;
  for (const Kernel kernel : kKernels) {
    const auto expected = run(kernel, c);
    for (const Index gap : {5, 600}) {
      CAPTURE(kernel);
      CAPTURE(gap);
      const auto apart = [&](const auto& x) { return HeadsWithGaps(x, gap); };
      HeadsWithGaps q = apart(q_heads(n, c.q)), k = apart(k_heads(n, c.k)), v = apart(v_heads(n, c.v)),
                    dout = apart(out_heads(n, c.dout));
      HeadsWithGaps dq = apart(q_heads(n, c.q)), dk = apart(k_heads(n, c.k)), dv = apart(v_heads(n, c.v)),
                    out = apart(out_heads(n, c.dout));
      AttentionResult<double> r = expected;
      run_views<double>(kernel, out.view, r.lse, {.dq = {dq.view}, .dk = {dk.view}, .dv = {dv.view}},
                        dout.view, {.q = q.view, .k = k.view, .v = v.view}, c.options);
      r.out = out.take(), r.dq = dq.take(), r.dk = dk.take(), r.dv = dv.take();
      check_close(r, expected, 1e-14);
      for (const HeadsWithGaps* x : {&out, &dq, &dk, &dv}) {
        for (const double between : x->buffer) REQUIRE(between == HeadsWithGaps::kGap);
      }
    }
  }
}

TEST_CASE("attention: q, k and v may lie interleaved in one tensor") {
  constexpr Index b = 2, t = 10, heads = 3, d = 4, row = 3 * heads * d;
  const auto qkv = random_numbers(b * t * row, 9);
  AttentionCase c = random_case({b, t, t, heads, heads, d, d}, {.causal = true});
  const auto part = [&](auto& x, Index index) {
    return HeadsView(x.data() + index * heads * d, b, t, heads, d, t * row, row, d);
  };
  const auto copy = [&](HeadsView<const double> from) {
    std::vector<double> to;
    for (Index i = 0; i < b * t * heads * d; ++i)
      to.push_back(from.head(i / (t * heads * d), i / d % heads)(i / (heads * d) % t, i % d));
    return to;
  };
  c.q = copy(part(qkv, 0)), c.k = copy(part(qkv, 1)), c.v = copy(part(qkv, 2));
  for (const Kernel kernel : kKernels) {
    auto r = filled_result<double>(c, 0);
    std::vector<double> dqkv(qkv.size());
    run_views<double>(kernel, out_heads(c.n, r.out), r.lse,
                      {.dq = {part(dqkv, 0)}, .dk = {part(dqkv, 1)}, .dv = {part(dqkv, 2)}},
                      out_heads(c.n, c.dout), {.q = part(qkv, 0), .k = part(qkv, 1), .v = part(qkv, 2)},
                      c.options);
    r.dq = copy(part(dqkv, 0)), r.dk = copy(part(dqkv, 1)), r.dv = copy(part(dqkv, 2));
    check_close(r, run(kernel, c), 1e-14);
  }
}

TEST_CASE("attention: q, k and v may be the same tensor") {
  AttentionCase c = random_case({1, 11, 11, 2, 2, 6, 6}, {.causal = true, .tiles = {4, 4}});
  c.k = c.v = c.q;
  const auto x = q_heads(c.n, std::as_const(c.q));
  for (const Kernel kernel : kKernels) {
    auto r = filled_result<double>(c, 0);
    run_views<double>(kernel, out_heads(c.n, r.out), r.lse, grads_of(c, r), out_heads(c.n, c.dout),
                      {.q = x, .k = x, .v = x}, c.options);
    CHECK(same_bits(r, run(kernel, c)));
  }
}

TEST_CASE("attention: each gradient is overwritten or added to as asked, and left out if not wanted") {
  // With 9 queries and 14 keys aligned top left, no query sees the last keys: they too must be zeroed or
  // kept.
  AttentionCase c =
      random_case({2, 9, 14, 4, 2, 6, 5}, {.causal = true, .align = Align::top_left, .tiles = {4, 4}});
  add_bias(c, 2, 1);
  add_sinks(c);
  const Operands<double> x(c);
  for (const Kernel kernel : kKernels) {
    const auto expected = run(kernel, c);
    for (int wanted = 0; wanted < 32; ++wanted) {
      for (int add = 0; add < 32; ++add) {
        CAPTURE(kernel);
        CAPTURE(wanted);
        CAPTURE(add);
        auto r = filled_result<double>(c, 1);
        auto grads = grads_of(c, r);
        const auto ask = [&](int bit, auto& gradient) {
          if ((wanted & bit) == 0) gradient = {};
          gradient.write = (add & bit) != 0 ? Write::accumulate : Write::overwrite;
        };
        ask(1, grads.dq);
        ask(2, grads.dk);
        ask(4, grads.dv);
        ask(8, grads.dbias);
        ask(16, grads.dsinks);
        run_views<double>(kernel, out_heads(c.n, r.out), r.lse, grads, out_heads(c.n, c.dout), x.inputs(),
                          c.options);
        const auto as_asked = [&](int bit, const std::vector<double>& got, std::vector<double> g) {
          if ((wanted & bit) == 0) g.assign(g.size(), 1.0);
          if ((wanted & add & bit) != 0)
            for (double& e : g) e += 1;
          return difference(got, g) <= 1e-12;
        };
        CHECK(as_asked(1, r.dq, expected.dq));
        CHECK(as_asked(2, r.dk, expected.dk));
        CHECK(as_asked(4, r.dv, expected.dv));
        CHECK(as_asked(8, r.dbias, expected.dbias));
        CHECK(as_asked(16, r.dsinks, expected.dsinks));
      }
    }
  }
}

TEST_CASE("attention: gradients that nobody reaches are cleared only where they are overwritten") {
  // Whole tiles of queries see nothing, and keys beyond their length are seen by none.
  AttentionCase c = random_case({2, 70, 40, 2, 1, 6, 5}, {.causal = true, .tiles = {16, 16}});
  c.k_lengths = {20, 0};
  add_bias(c, 1, 2);
  const Operands<double> x(c);
  for (const Kernel kernel : kKernels) {
    CAPTURE(kernel);
    const auto expected = run(kernel, c);
    check_close(expected, reference(c));
    auto r = filled_result<double>(c, 1);
    auto grads = grads_of(c, r);
    for (Write* write : {&grads.dq.write, &grads.dk.write, &grads.dv.write, &grads.dbias.write})
      *write = Write::accumulate;
    run_views<double>(kernel, out_heads(c.n, r.out), r.lse, grads, out_heads(c.n, c.dout), x.inputs(),
                      c.options);
    for (auto* gradient : {&r.dq, &r.dk, &r.dv, &r.dbias})
      for (double& e : *gradient) e -= 1;
    check_close(r, expected);
  }
}

TEST_CASE("attention: exp of a row is accurate to 1e-15, vanishes at -inf and keeps NaN") {
  const double inf = std::numeric_limits<double>::infinity();
  std::vector<double> x, y;
  for (double e = -700; e <= 0; e += 0.37) x.push_back(e);
  x.push_back(-inf);
  y.resize(x.size());
  const double sum = kernels::row_exp<double>(y.data(), std::ssize(x), x.data(), 0.25);
  double expected_sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(x[i] - 0.25);
    CHECK(std::abs(y[i] - expected) <= 1e-15 * expected);
    expected_sum += expected;
  }
  CHECK(sum == doctest::Approx(expected_sum).epsilon(1e-14));
  x[5] = std::numeric_limits<double>::quiet_NaN();
  CHECK(std::isnan(kernels::row_exp<double>(y.data(), std::ssize(x), x.data(), 0.0)));
  CHECK(std::isnan(y[5]));
  CHECK(y.back() == 0);
}
