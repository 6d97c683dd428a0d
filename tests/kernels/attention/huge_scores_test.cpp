#include <functional>
#include <string>

#include "tests/close.h"
#include "tests/kernels/attention/attention_case.h"
#include "tests/kernels/simd_targets.h"

using namespace tilegrad;
using namespace tilegrad::test;

// Scores may be as large as their type allows. Additive masks of the lowest number are what makes them so.

namespace {

template <class T>
constexpr double kLowest = static_cast<double>(std::numeric_limits<T>::lowest());
// Scores up to kLargeScore, which is 256, and their LSE are rounded in units of log 2.
template <class T>
constexpr double kTolerance = 2 * 256 * 1.45 * unit_roundoff<T>();

struct Named {
  std::string name;
  std::function<void(AttentionCase&)> apply;
};

// Everything that walks another road from the product to the probability.
std::vector<Named> options() {
  return {{"nothing", [](AttentionCase&) {}},
          {"causal", [](AttentionCase& c) { c.options.causal = true; }},
          {"window", [](AttentionCase& c) { c.options.window = {.left = 9, .right = 2}; }},
          {"softcap", [](AttentionCase& c) { c.options.softcap = 2.0; }},
          {"dropout", [](AttentionCase& c) { add_dropout(c, 0.3); }},
          {"alibi", add_alibi},
          {"mask", [](AttentionCase& c) { add_mask(c, 1, c.n.hq); }},
          {"sinks", add_sinks},
          {"dlse", add_dlse},
          {"packed", [](AttentionCase& c) {
             const auto tq = static_cast<std::int32_t>(c.n.tq), tk = static_cast<std::int32_t>(c.n.tk);
             c.cu_q = {0, tq / 2, tq};
             c.cu_k = {0, tk / 3, tk};
           }}};
}

// A tile of queries and several of keys; split-KV with the heads of a group in one panel; decode.
const AttentionSizes kHugeScoreSizes[] = {
    {1, 21, 40, 4, 2, 6, 5}, {1, 5, 300, 4, 1, 6, 5}, {1, 1, 300, 2, 2, 6, 5}};

// Both kernels against plain loops.
template <class T>
void check_kernels(const AttentionCase& c) {
  const auto expected = reference<T>(c);
  for (const Kernel kernel : kKernels) {
    CAPTURE(kernel);
    check_close(run<T>(kernel, c), expected, kTolerance<T>);
  }
}

// Without the gradients of q and k: what is exactly 0 there has an error of the size of its terms.
template <class A, class B>
void check_outputs(const AttentionResult<A>& r, const AttentionResult<B>& expected, double tolerance,
                   double of_lse) {
  CHECK(difference(r.out, expected.out) < tolerance);
  CHECK(difference(r.lse, expected.lse) < of_lse);
  CHECK(difference(r.dv, expected.dv) < tolerance);
}

// With every option, and in tiles that keep some keys from some tile.
template <class T>
void check_with_options(const std::function<void(AttentionCase&)>& prepare) {
  for (const AttentionSizes& n : kHugeScoreSizes) {
    for (const Named& option : options()) {
      AttentionCase c = random_case(n, {.tiles = {.keys = 16}});
      prepare(c);
      option.apply(c);
      CAPTURE(option.name);
      CAPTURE(n.tq);
      check_kernels<T>(c);
    }
  }
}

// A bias of `value` where padded(query, key), and none elsewhere.
void add_padding(AttentionCase& c, double value, const std::function<bool(Index, Index)>& padded) {
  c.bias = {.data = std::vector<double>(static_cast<std::size_t>(c.n.tq * c.n.tk))};
  for (std::size_t at = 0; at < c.bias.data.size(); ++at) {
    const auto n = static_cast<Index>(at);
    if (padded(n / c.n.tk, n % c.n.tk)) c.bias.data[at] = value;
  }
}

// Scores near `size`, or near −size for every other query, that still differ by a few units and are exact in
// T.
void add_common_score(AttentionCase& c, double size) {
  c.options.scale = 0.25;
  for (auto* x : {&c.q, &c.k}) {
    for (double& e : *x) e = std::round(e * 8) / 8;
  }
  for (std::size_t i = 0, n = 0; i < c.q.size(); i += static_cast<std::size_t>(c.n.d), ++n)
    c.q[i] = n % 2 == 0 ? size : -size;
  for (std::size_t j = 0; j < c.k.size(); j += static_cast<std::size_t>(c.n.d)) c.k[j] = 4;
}

}  // namespace

TEST_CASE_TEMPLATE("attention: keys with a bias of the lowest number weigh nothing beside others", T, float,
                   double) {
  check_with_options<T>([](AttentionCase& c) {  // on the left
    add_padding(c, kLowest<T>, [](Index, Index j) { return j < 18; });
  });
  check_with_options<T>([](AttentionCase& c) {  // on the right
    add_padding(c, kLowest<T>, [&](Index, Index j) { return j >= c.n.tk - 18; });
  });
}

TEST_CASE_TEMPLATE("attention: a query that sees nothing but keys of the lowest score weighs them equally", T,
                   float, double) {
  for (const double value : {kLowest<T>, kLowest<T> / 2, -1e9}) {
    CAPTURE(value);
    check_with_options<T>([&](AttentionCase& c) {
      add_padding(c, value, [](Index i, Index j) { return i % 3 == 0 || j < 3; });
    });
  }
}

TEST_CASE("attention: with a causal mask, a query whose only key is padded is that key's value") {
  AttentionCase c = random_case({1, 9, 9, 1, 1, 4, 4}, {.causal = true});
  add_padding(c, kLowest<float>, [](Index, Index j) { return j == 0; });
  for (const Kernel kernel : kKernels) {
    const auto r = run<float>(kernel, c);
    for (std::size_t d = 0; d < 4; ++d) CHECK(r.out[d] == doctest::Approx(c.v[d]));
    CHECK(r.lse[0] == std::numeric_limits<float>::lowest());
  }
}

TEST_CASE_TEMPLATE("attention: a bias of the largest number takes all the weight", T, float, double) {
  check_with_options<T>(
      [](AttentionCase& c) { add_padding(c, -kLowest<T>, [](Index i, Index j) { return j % 7 == i % 7; }); });
}

TEST_CASE_TEMPLATE("attention: sinks of the lowest and of the largest number", T, float, double) {
  for (const bool padded : {false, true}) {
    for (const double sink : {kLowest<T>, -kLowest<T>}) {
      check_with_options<T>([&](AttentionCase& c) {
        if (padded) add_padding(c, kLowest<T>, [](Index i, Index) { return i % 2 == 0; });
        c.sinks = std::vector<double>(static_cast<std::size_t>(c.n.hq), sink);
        c.sinks[0] = 0.5;
      });
    }
  }
}

TEST_CASE_TEMPLATE("attention: scores that are large together differ as they do when they are small", T,
                   float, double) {
  for (const double size : {200.0, 1e3, 16384.0})
    check_with_options<T>([&](AttentionCase& c) { add_common_score(c, size); });
}

TEST_CASE("attention: scores near the largest number, from queries and keys of 1e18") {
  AttentionCase c = random_case({1, 40, 70, 2, 1, 16, 5}, {.causal = true, .tiles = {16, 16}});
  for (double& x : c.q) x *= 1e18;
  for (double& x : c.k) x *= 1e18;
  add_dlse(c);
  const auto expected = reference<float>(c);
  for (const Kernel kernel : kKernels) {
    CAPTURE(kernel);
    const auto r = run<float>(kernel, c);
    check_outputs(r, expected, 1e-5, 1e-6);
    for (const auto* x : {&r.dq, &r.dk}) {
      for (const float e : *x) CHECK(std::abs(e) < 1e18F * 1e2F);
    }
  }
}

TEST_CASE("attention: scores beyond the largest number are infinite, in both kernels and in any tiles") {
  for (const double scale : {1e-3, 1.0, 1e3, 1e30}) {
    AttentionCase c = random_case({1, 20, 40, 2, 1, 2, 3}, {.scale = scale});
    for (double& x : c.q) x *= 3e18;
    for (double& x : c.k) x *= 3e18;
    for (const Index keys : {0, 8}) {
      c.options.tiles = {.keys = keys};
      CAPTURE(scale);
      CAPTURE(keys);
      const auto naive = run<float>(Kernel::naive, c), flash = run<float>(Kernel::flash, c);
      check_outputs(flash, naive, 1e-5, 1e-6);
    }
  }
}

TEST_CASE("attention: huge scores on every SIMD target") {
  on_each_target([] {
    AttentionCase c = random_case({1, 21, 40, 4, 2, 6, 5}, {.causal = true, .tiles = {.keys = 16}});
    add_sinks(c);
    add_padding(c, kLowest<float>, [](Index i, Index j) { return i % 3 == 0 || j < 18; });
    check_kernels<float>(c);
    c.sinks[1] = kLowest<float>;
    check_kernels<float>(c);
    AttentionCase raised = random_case({1, 21, 40, 4, 2, 6, 5}, {.tiles = {.keys = 16}});
    add_common_score(raised, 5e3);
    check_kernels<float>(raised);
  });
}

TEST_CASE("attention: heads of size 0 weigh all keys equally, and values of size 0 have no output") {
  for (const AttentionSizes& n : {AttentionSizes{2, 5, 20, 4, 2, 0, 3}, AttentionSizes{2, 5, 20, 4, 2, 3, 0},
                                  AttentionSizes{2, 5, 0, 4, 2, 3, 3}, AttentionSizes{1, 1, 9, 1, 1, 0, 3}}) {
    AttentionCase c = random_case(n);
    add_dlse(c);
    check_kernels<float>(c);
    check_kernels<double>(c);
    add_sinks(c);
    check_kernels<double>(c);
  }
}

TEST_CASE("attention: scales of any size") {
  for (const double scale : {1e-60, 1e-42, 1e-37, 1e-20, 1e20, 3e38}) {
    AttentionCase c = random_case({1, 21, 40, 4, 2, 6, 5}, {.scale = scale});
    for (double& x : c.q) x *= std::min(1 / scale, 1e18);
    for (double& x : c.q) x = static_cast<double>(static_cast<float>(x));
    CAPTURE(scale);
    const auto expected = reference<float>(c);
    for (const Kernel kernel : kKernels) {
      CAPTURE(kernel);
      check_outputs(run<float>(kernel, c), expected, 2e-5, 2e-5);
    }
  }
}

TEST_CASE("attention: softcaps of any size") {
  for (const double cap : {2e-38, 1e-20, 1e10, 1e20, 8e37}) {
    AttentionCase c = random_case({1, 21, 40, 4, 2, 6, 5}, {.softcap = cap});
    CAPTURE(cap);
    check_kernels<float>(c);
    check_kernels<double>(c);
  }
}
