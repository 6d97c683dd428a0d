#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "tests/kernels/attention/attention_case.h"
#include "tests/kernels/simd_targets.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Where row (b, h, i) of (B, Hq, Tq) has its first element in (B, Tq, Hq, dim).
std::size_t begin_of(const AttentionSizes& n, std::size_t row, Index dim) {
  const auto r = static_cast<Index>(row);
  const Index i = r % n.tq, h = r / n.tq % n.hq, b = r / n.tq / n.hq;
  return static_cast<std::size_t>(((b * n.tq + i) * n.hq + h) * dim);
}

template <class T>
bool all_zero(const std::vector<T>& x, std::size_t begin, Index n) {
  return std::all_of(x.begin() + static_cast<std::ptrdiff_t>(begin),
                     x.begin() + static_cast<std::ptrdiff_t>(begin) + n, [](T e) { return e == 0; });
}

template <class T>
void check_blind(const AttentionCase& c, const std::vector<bool>& blind, const AttentionResult<T>& r) {
  bool out = true, lse = true, dq = true;
  for (std::size_t row = 0; row < blind.size(); ++row) {
    if (!blind[row]) continue;
    out = out && all_zero(r.out, begin_of(c.n, row, c.n.dv), c.n.dv);
    lse = lse && r.lse[row] == -std::numeric_limits<T>::infinity();
    dq = dq && all_zero(r.dq, begin_of(c.n, row, c.n.d), c.n.d);
  }
  CHECK(out);
  CHECK(lse);
  CHECK(dq);
}

// Some rows of the case see nothing: they have output 0, lse −inf and zero gradients, exactly, and all else
// is as in plain loops. So it is with every option that walks another road through the kernels, and for tiles
// that are cut differently.
void check_blindness(const AttentionCase& c) {
  struct Option {
    std::string name;
    std::function<void(AttentionCase&)> add;
  };
  const Option options[] = {{"plain", [](AttentionCase&) {}},
                            {"dropout", [](AttentionCase& x) { add_dropout(x, 0.2); }},
                            {"softcap", [](AttentionCase& x) { x.options.softcap = 2.0; }},
                            {"alibi", add_alibi},
                            {"dlse", add_dlse}};
  for (const Option& option : options) {
    AttentionCase with = c;
    option.add(with);
    const auto expected = reference(with);
    const auto blind = blind_rows(expected);
    REQUIRE(std::count(blind.begin(), blind.end(), true) > 0);
    for (const Kernel kernel : kKernels) {
      for (const Index tile : {0, 16, 5}) {
        with.options.tiles = {tile, tile};
        CAPTURE(option.name);
        CAPTURE(kernel);
        CAPTURE(tile);
        const auto r = run(kernel, with);
        check_close(r, expected);
        check_blind(with, blind, r);
        check_blind(with, blind, run<float>(kernel, with));
      }
    }
  }
}

// Queries that see nothing: whole tiles of them, and single ones.
bool hidden(std::size_t i) { return i < 40 || i % 7 == 0; }

AttentionCase masked_case() {
  AttentionCase c = random_case({2, 90, 40, 2, 1, 4, 3});
  add_mask(c, 2, 2);
  for (std::size_t at = 0; at < c.mask.data.size(); ++at) {
    if (hidden(at / 40 % 90)) c.mask.data[at] = 0;
  }
  return c;
}

AttentionCase biased_case() {
  AttentionCase c = random_case({2, 90, 40, 2, 1, 4, 3});
  add_bias(c, 1, 2);
  for (std::size_t at = 0; at < c.bias.data.size(); ++at) {  // some keys from every query
    if (hidden(at / 40 % 90) || at % 3 == 0) c.bias.data[at] = -kInfinity;
  }
  return c;
}

}  // namespace

TEST_CASE("attention: a query before all keys sees nothing") {
  // The first 13 of 20 queries, and whole tiles of them.
  check_blindness(random_case({1, 20, 7, 2, 1, 4, 3}, {.causal = true}));
  check_blindness(random_case({1, 90, 40, 2, 1, 4, 3}, {.causal = true}));
}

TEST_CASE("attention: a query whose window lies beyond the keys sees nothing") {
  check_blindness(
      random_case({1, 90, 40, 2, 1, 4, 3}, {.align = Align::top_left, .window = {.left = 3, .right = 2}}));
  check_blindness(random_case({1, 90, 40, 2, 1, 4, 3}, {.window = {.left = 3, .right = 2}}));
}

TEST_CASE("attention: a window of 10 in 640 keys, with half of the queries beyond the keys") {
  for (const Align align : {Align::top_left, Align::bottom_right}) {
    for (const AttentionSizes& n :
         {AttentionSizes{1, 640, 640, 1, 1, 8, 8}, AttentionSizes{1, 640, 320, 1, 1, 8, 8},
          AttentionSizes{1, 320, 640, 1, 1, 8, 8}}) {
      const AttentionCase c = random_case(n, {.causal = true, .align = align, .window = {.left = 10}});
      const auto expected = reference(c);
      const auto blind = blind_rows(expected);
      const Index beyond = std::max<Index>(n.tq - n.tk, 0);  // the last queries, or the first ones
      CHECK(std::count(blind.begin(), blind.end(), true) ==
            (align == Align::top_left ? std::max<Index>(beyond - 10, 0) : beyond));
      for (const Kernel kernel : kKernels) {
        CAPTURE(kernel);
        CAPTURE(n.tq);
        CAPTURE(n.tk);
        const auto r = run(kernel, c);
        check_close(r, expected);
        check_blind(c, blind, r);
        check_blind(c, blind, run<float>(kernel, c));
      }
    }
  }
}

TEST_CASE("attention: a query whose whole row is masked sees nothing" * doctest::test_suite("slow")) {
  on_each_target([] { check_blindness(masked_case()); });
}

TEST_CASE("attention: a query with a bias of -inf for all keys sees nothing" * doctest::test_suite("slow")) {
  on_each_target([] { check_blindness(biased_case()); });
}

TEST_CASE("attention: a NaN in the dlse of a query that sees nothing goes nowhere") {
  for (AttentionCase c : {masked_case(), biased_case()}) {
    add_dlse(c);
    const auto expected = reference(c);
    const auto blind = blind_rows(expected);
    for (std::size_t row = 0; row < blind.size(); ++row) {
      if (blind[row]) c.dlse[row] = std::numeric_limits<double>::quiet_NaN();
    }
    for (const Kernel kernel : kKernels) {
      CAPTURE(kernel);
      const auto r = run(kernel, c);
      check_close(r, expected);
      check_blind(c, blind, r);
    }
  }
}

TEST_CASE(
    "attention: a NaN in the dlse of a query that sees its sink alone reaches that sink and nothing else") {
  for (AttentionCase c : {masked_case(), biased_case()}) {
    const auto blind = blind_rows(reference(c));
    add_sinks(c);
    add_dlse(c);
    const auto expected = reference(c);
    for (std::size_t row = 0; row < blind.size(); ++row) {
      if (blind[row]) c.dlse[row] = std::numeric_limits<double>::quiet_NaN();
    }
    for (const Kernel kernel : kKernels) {
      CAPTURE(kernel);
      auto r = run(kernel, c);
      for (const double dsink : r.dsinks) CHECK(std::isnan(dsink));
      r.dsinks = expected.dsinks;
      check_close(r, expected);
    }
  }
}

TEST_CASE("attention: a query whose keys are all hidden by a bias of -inf reads no NaN and gives none") {
  for (const bool sinks : {false, true}) {
    AttentionCase c = biased_case();
    if (sinks) add_sinks(c);
    add_dlse(c);
    for (auto* input : {&c.q, &c.k, &c.v, &c.dout, &c.dlse}) {
      for (const std::size_t at : {std::size_t{1}, input->size() - 1}) {
        const double good = std::exchange((*input)[at], std::numeric_limits<double>::quiet_NaN());
        for (const std::optional<double> softcap : {std::optional<double>(), std::optional<double>(2.0)}) {
          c.options.softcap = softcap;
          const auto expected = reference(c);
          for (const Kernel kernel : kKernels) {
            CAPTURE(kernel);
            CAPTURE(sinks);
            CAPTURE(at);
            check_close(run(kernel, c), expected);
          }
        }
        (*input)[at] = good;
      }
    }
  }
}

TEST_CASE("attention: a batch row with key length 0 sees nothing") {
  AttentionCase c = random_case({3, 37, 40, 2, 1, 4, 3});
  c.k_lengths = {0, 40, 21};
  check_blindness(c);
  c.options.causal = true;
  check_blindness(c);
}

TEST_CASE("attention: a packed sequence without keys sees nothing, and one without queries is seen by none") {
  AttentionCase c = random_case({1, 80, 70, 2, 1, 4, 3});
  c.cu_q = {0, 30, 60, 60, 80};
  c.cu_k = {0, 0, 20, 50, 70};
  check_blindness(c);
  c.options.causal = true;
  check_blindness(c);
  for (const Kernel kernel : kKernels) {
    const auto r = run(kernel, c);
    CHECK(all_zero(r.dk, 20 * 4, 30 * 4));
    CHECK(all_zero(r.dv, 20 * 3, 30 * 3));
  }
}

TEST_CASE("attention: a query that sees its sink alone has output 0 and the sink as lse") {
  AttentionCase c = random_case({2, 50, 30, 2, 1, 4, 3}, {.causal = true});
  c.k_lengths = {0, 12};
  add_sinks(c);
  add_dlse(c);
  const auto expected = reference(c);
  for (const Kernel kernel : kKernels) {
    CAPTURE(kernel);
    const auto r = run(kernel, c);
    check_close(r, expected);
    for (Index row = 0; row < 100; ++row) {  // of the first batch row
      const auto at = static_cast<std::size_t>(row);
      CHECK(r.lse[at] == doctest::Approx(c.sinks[at / 50]));
      CHECK(all_zero(r.out, begin_of(c.n, at, 3), 3));
      CHECK(all_zero(r.dq, begin_of(c.n, at, 4), 4));
    }
  }
}

TEST_CASE("attention: a sink of -inf is none") {
  AttentionCase c = random_case({2, 50, 30, 2, 1, 4, 3}, {.causal = true});
  c.k_lengths = {0, 12};
  c.sinks = {-kInfinity, 0.5};
  add_dlse(c);
  for (const Kernel kernel : kKernels) {
    CAPTURE(kernel);
    const auto r = run(kernel, c);
    check_close(r, reference(c));
    CHECK(r.dsinks[0] == 0);
  }
}
