#include <cstring>
#include <utility>

#include "kernels/parallel.h"
#include "kernels/rows.h"
#include "tests/kernels/attention_case.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Rows of a tensor in a larger buffer: what lies between them must stay as it is.
struct Padded {
  static constexpr double kPad = 1234.5;
  std::vector<double> buffer;
  Heads<double> view;

  // Every head is followed by 3 elements that belong to nobody, every position by 5, every batch row by 7.
  Padded(const std::vector<double>& values, Index b, Index t, Index h, Index d) {
    const Index stride_h = d + 3, stride_t = h * stride_h + 5, stride_b = t * stride_t + 7;
    buffer = filled(b * stride_b, kPad);
    view = Heads<double>(buffer.data(), b, t, h, d, stride_b, stride_t, stride_h);
    each([&, at = std::size_t{0}](double& x) mutable { x = values[at++]; });
  }

  template <class F>
  void each(F&& f) {
    for (Index b = 0; b < view.batch; ++b)
      for (Index t = 0; t < view.time; ++t)
        for (Index h = 0; h < view.heads; ++h)
          for (Index d = 0; d < view.dim; ++d) f(view.head(b, h)(t, d));
  }

  // The values; afterwards every place of the buffer is padding.
  std::vector<double> take() {
    std::vector<double> values;
    each([&](double& x) { values.push_back(std::exchange(x, kPad)); });
    return values;
  }
};

}  // namespace

TEST_CASE("attention: a query that sees no key has output 0, lse -inf and zero gradient") {
  for (const Kernel kernel : kKernels) {
    for (const Index tile : {0, 4}) {
      CAPTURE(kernel);
      // The first 13 of 20 queries see nothing: whole tiles of them, and a part of one.
      AttentionCase<double> c = {.n = {1, 20, 7, 2, 1, 4, 3},
                                 .options = {.causal = true, .tiles = {tile, tile}}};
      const auto r = c.run(kernel);
      for (std::size_t i = 0; i < 13 * 2 * 3; ++i) CHECK(r.out[i] == 0);
      for (std::size_t i = 0; i < 13 * 2 * 4; ++i) CHECK(r.dq[i] == 0);
      for (std::size_t i = 0; i < 13; ++i) CHECK(r.lse[i] == -std::numeric_limits<double>::infinity());
      check_close(r, c.reference());
    }
  }
}

TEST_CASE("attention: NaN and Inf show where they are used and nowhere else") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  using Case = AttentionCase<double>;
  const auto check_each_place = [](Case c, std::vector<double> Case::*input, double bad) {
    for (std::size_t at = 0; at < (c.*input).size(); at += 7) {
      CAPTURE(bad);
      CAPTURE(at);
      const double good = std::exchange((c.*input)[at], bad);
      const auto expected = c.reference();  // touches nothing but what a query sees
      for (const Index keys : {3, 1}) {     // with one key in a tile, all scores of a tile may be −inf
        c.options.tiles = {4, keys};
        for (const Kernel kernel : kKernels) {
          CAPTURE(kernel);
          check_close(c.run(kernel), expected);
        }
      }
      (c.*input)[at] = good;
    }
  };
  for (const auto& [tq, tk] : {std::pair<Index, Index>{10, 10}, {11, 7}, {5, 12}}) {
    for (const bool causal : {false, true}) {
      for (const auto input : {&Case::q, &Case::k, &Case::v, &Case::dout}) {
        for (const double bad : {nan, inf, -inf})
          check_each_place({.n = {1, tq, tk, 2, 1, 3, 3}, .options = {.causal = causal}}, input, bad);
      }
    }
  }
}

TEST_CASE("attention: dropout is the same in both kernels and both passes, for any tiles") {
  AttentionCase<double> c = {.n = {2, 13, 18, 4, 2, 6, 5},
                             .options = {.causal = true, .dropout = 0.3, .dropout_key = RandomKey{8}}};
  const auto expected = c.reference();
  check_close(c.run(Kernel::naive), expected);
  for (const auto& [queries, keys] : {std::pair<Index, Index>{0, 0}, {4, 4}, {5, 3}, {1, 7}}) {
    c.options.tiles = {queries, keys};
    check_close(c.run(Kernel::flash), expected);
  }
}

TEST_CASE("attention: dropout keeps a probability with chance 1 - p, and lse does not know of it") {
  // Equal scores and values of one: out is the kept share of the keys over 1 − p.
  for (const Kernel kernel : kKernels) {
    AttentionCase<double> c = {.n = {1, 64, 1000, 2, 1, 4, 1},
                               .options = {.scale = 0, .dropout = 0.25, .dropout_key = RandomKey{3}}};
    c.v = filled(c.n.v_size(), 1.0);
    const auto r = c.run(kernel);
    double mean = 0;
    for (const double x : r.out) mean += x / static_cast<double>(r.out.size());
    CHECK(mean == doctest::Approx(1).epsilon(0.01));  // the standard deviation is 0.0016
    CHECK(r.out[0] != r.out[1]);
    for (const double lse : r.lse) CHECK(lse == doctest::Approx(std::log(1000.0)));
  }
}

TEST_CASE("attention: with dropout the gradients match finite differences") {
  using Case = AttentionCase<double>;
  using Result = AttentionResult<double>;
  for (const Kernel kernel : kKernels) {
    Case c = {.n = {1, 4, 5, 2, 1, 3, 2},
              .options = {.causal = true, .dropout = 0.4, .dropout_key = RandomKey{5}, .tiles = {2, 3}}};
    const auto loss = [&] {  // ⟨dout, out⟩
      double sum = 0;
      const auto out = c.run(kernel).out;
      for (std::size_t i = 0; i < out.size(); ++i) sum += c.dout[i] * out[i];
      return sum;
    };
    const auto analytic = c.run(kernel);
    for (const auto& [input, gradient] : {std::pair(&Case::q, &Result::dq), std::pair(&Case::k, &Result::dk),
                                          std::pair(&Case::v, &Result::dv)}) {
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

TEST_CASE("attention: heads with gaps between them give the same, and the gaps stay untouched") {
  AttentionCase<double> c = {.n = {2, 9, 14, 4, 2, 6, 5}, .options = {.causal = true, .tiles = {4, 4}}};
  const auto& n = c.n;
  for (const Kernel kernel : kKernels) {
    CAPTURE(kernel);
    const auto expected = c.run(kernel);
    Padded q(c.q, n.b, n.tq, n.hq, n.d), k(c.k, n.b, n.tk, n.hkv, n.d), v(c.v, n.b, n.tk, n.hkv, n.dv);
    Padded dout(c.dout, n.b, n.tq, n.hq, n.dv), out = dout, dq = q, dk = k, dv = v;
    for (Padded* x : {&out, &dq, &dk, &dv}) x->view.data = x->buffer.data();
    AttentionResult<double> r;
    run_views<double>(kernel, out.view, r.lse, {.dq = dq.view, .dk = dk.view, .dv = dv.view}, dout.view,
                      {.q = q.view, .k = k.view, .v = v.view}, c.options);
    r.out = out.take(), r.dq = dq.take(), r.dk = dk.take(), r.dv = dv.take();
    check_close(r, expected, 1e-14);
    for (const Padded* x : {&out, &dq, &dk, &dv}) {
      for (const double pad : x->buffer) REQUIRE(pad == Padded::kPad);
    }
  }
}

TEST_CASE("attention: q, k and v may lie interleaved in one tensor") {
  constexpr Index b = 2, t = 10, heads = 3, d = 4, row = 3 * heads * d;
  auto qkv = random_vector<double>(b * t * row, 9);
  AttentionCase<double> c = {.n = {b, t, t, heads, heads, d, d}, .options = {.causal = true}};
  const auto part = [&](std::vector<double>& x, Index index) {
    return Heads<double>(x.data() + index * heads * d, b, t, heads, d, t * row, row, d);
  };
  const auto copy = [&](Heads<double> from) {
    std::vector<double> to;
    for (Index i = 0; i < b * t * heads * d; ++i)
      to.push_back(from.head(i / (t * heads * d), i / d % heads)(i / (heads * d) % t, i % d));
    return to;
  };
  c.q = copy(part(qkv, 0)), c.k = copy(part(qkv, 1)), c.v = copy(part(qkv, 2));
  for (const Kernel kernel : kKernels) {
    AttentionResult<double> r = {filled(c.n.out_size(), 0.0), {}, {}, {}, {}};
    std::vector<double> dqkv(qkv.size());
    run_views<double>(kernel, c.out_heads(r.out), r.lse,
                      {.dq = part(dqkv, 0), .dk = part(dqkv, 1), .dv = part(dqkv, 2)}, c.out_heads(c.dout),
                      {.q = part(qkv, 0), .k = part(qkv, 1), .v = part(qkv, 2)}, c.options);
    r.dq = copy(part(dqkv, 0)), r.dk = copy(part(dqkv, 1)), r.dv = copy(part(dqkv, 2));
    check_close(r, c.run(kernel), 1e-14);
  }
}

TEST_CASE("attention: q, k and v may be the same tensor") {
  AttentionCase<double> c = {.n = {1, 11, 11, 2, 2, 6, 6}, .options = {.causal = true, .tiles = {4, 4}}};
  c.k = c.v = c.q;
  for (const Kernel kernel : kKernels) {
    AttentionResult<double> r = {filled(c.n.out_size(), 0.0), {}, c.q, c.q, c.q};
    run_views<double>(kernel, c.out_heads(r.out), r.lse,
                      {.dq = c.q_heads(r.dq), .dk = c.k_heads(r.dk), .dv = c.v_heads(r.dv)},
                      c.out_heads(c.dout), {.q = c.q_heads(c.q), .k = c.q_heads(c.q), .v = c.q_heads(c.q)},
                      c.options);
    CHECK(r == c.run(kernel));
  }
}

TEST_CASE("attention: each gradient is overwritten or added to as asked, and left out if not wanted") {
  // With 9 queries and 14 keys aligned top left, no query sees the last keys: they too must be zeroed or
  // kept.
  AttentionCase<double> c = {.n = {2, 9, 14, 4, 2, 6, 5},
                             .options = {.causal = true, .align = Align::top_left, .tiles = {4, 4}}};
  for (const Kernel kernel : kKernels) {
    const auto expected = c.run(kernel);
    for (int wanted = 0; wanted < 8; ++wanted) {
      for (int add = 0; add < 8; ++add) {
        CAPTURE(kernel);
        CAPTURE(wanted);
        CAPTURE(add);
        AttentionResult<double> r = {filled(c.n.out_size(), 0.0),
                                     {},
                                     filled(c.n.q_size(), 1.0),
                                     filled(c.n.k_size(), 1.0),
                                     filled(c.n.v_size(), 1.0)};
        const auto write = [&](int bit) { return (add & bit) != 0 ? Write::accumulate : Write::overwrite; };
        const auto target = [&](int bit, Heads<double> grad) {
          return (wanted & bit) != 0 ? grad : Heads<double>();
        };
        const kernels::AttentionGrads<double> grads = {.dq = target(1, c.q_heads(r.dq)),
                                                       .write_q = write(1),
                                                       .dk = target(2, c.k_heads(r.dk)),
                                                       .write_k = write(2),
                                                       .dv = target(4, c.v_heads(r.dv)),
                                                       .write_v = write(4)};
        run_views<double>(kernel, c.out_heads(r.out), r.lse, grads, c.out_heads(c.dout),
                          {.q = c.q_heads(c.q), .k = c.k_heads(c.k), .v = c.v_heads(c.v)}, c.options);
        const auto as_asked = [&](int bit, const std::vector<double>& got, std::vector<double> g) {
          if ((wanted & bit) == 0) g = filled(std::ssize(g), 1.0);
          if ((wanted & add & bit) != 0)
            for (double& x : g) x += 1;
          return difference(got, g) <= 1e-12;
        };
        CHECK(as_asked(1, r.dq, expected.dq));
        CHECK(as_asked(2, r.dk, expected.dk));
        CHECK(as_asked(4, r.dv, expected.dv));
      }
    }
  }
}

TEST_CASE("attention: every number of threads gives the same bits, and so does every repeat") {
  const int before = kernels::threads();
  for (const Kernel kernel : kKernels) {
    for (const Index hkv : {4, 1}) {
      AttentionCase<float> c = {.n = {1, 333, 301, 4, hkv, 20, 20},
                                .options = {.causal = true, .dropout = 0.1, .dropout_key = RandomKey{1}}};
      kernels::set_threads(1);
      const auto expected = c.run(kernel);
      for (const int threads : {1, 2, 3, 7, 7, 7}) {
        CAPTURE(kernel);
        CAPTURE(threads);
        kernels::set_threads(threads);
        const auto r = c.run(kernel);
        CHECK(same_bits(r.out, expected.out));
        CHECK(same_bits(r.lse, expected.lse));
        CHECK(same_bits(r.dq, expected.dq));
        CHECK(same_bits(r.dk, expected.dk));
        CHECK(same_bits(r.dv, expected.dv));
      }
    }
  }
  kernels::set_threads(before);
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
