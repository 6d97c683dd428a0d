#include <functional>
#include <string>
#include <type_traits>
#include <utility>

#include "tests/kernels/attention/attention_case.h"
#include "tests/kernels/simd_targets.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

struct Setting {
  std::string name;
  std::function<void(AttentionCase&)> apply;
};

// Everything that hides keys from queries.
std::vector<Setting> settings() {
  return {{"full", [](AttentionCase&) {}},
          {"causal", [](AttentionCase& c) { c.options.causal = true; }},
          {"window", [](AttentionCase& c) { c.options.window = {.left = 3, .right = 1}; }},
          {"mask", [](AttentionCase& c) { add_mask(c, 1, c.n.hq); }},
          {"lengths", [](AttentionCase& c) { c.k_lengths = {static_cast<std::int32_t>(c.n.tk - 3)}; }},
          {"packed",
           [](AttentionCase& c) {
             const auto tq = static_cast<std::int32_t>(c.n.tq), tk = static_cast<std::int32_t>(c.n.tk);
             c.cu_q = {0, tq / 2, tq};
             c.cu_k = {0, tk / 3, tk};
           }},
          {"causal, softcap and dropout", [](AttentionCase& c) {
             c.options.causal = true;
             c.options.softcap = 2.0;
             add_dropout(c, 0.3);
           }}};
}

struct Input {
  std::string name;
  std::vector<double>* values;  // empty if the case has none
};
std::vector<Input> inputs(AttentionCase& c) {
  return {{"q", &c.q},         {"k", &c.k},        {"v", &c.v},
          {"dout", &c.dout},   {"dlse", &c.dlse},  {"bias", &c.bias.data},
          {"sinks", &c.sinks}, {"alibi", &c.alibi}};
}

// Puts NaN, Inf and −Inf to every `step`-th place of each input. The plain loops touch nothing but what a
// query sees, so they say where it must show.
void check_each_place(AttentionCase c, std::size_t step, std::initializer_list<Index> tiles) {
  for (const Input& input : inputs(c)) {
    for (std::size_t at = 0; at < input.values->size(); at += step) {
      for (const double bad : {kNan, kInf, -kInf}) {
        double& place = (*input.values)[at];
        const double good = std::exchange(place, bad);
        const auto expected = reference(c);
        for (const Index tile : tiles) {
          c.options.tiles = {tile, tile};
          for (const Kernel kernel : kKernels) {
            CAPTURE(kernel);
            CAPTURE(tile);
            CAPTURE(input.name);
            CAPTURE(at);
            CAPTURE(bad);
            check_close(run(kernel, c), expected);
            check_close(run<float>(kernel, c), expected, 1e-4);
          }
        }
        place = good;
      }
    }
  }
}

}  // namespace

TEST_CASE("attention: NaN and Inf show where they are used and nowhere else") {
  for (const AttentionSizes& n : {AttentionSizes{1, 10, 10, 2, 1, 3, 3}, AttentionSizes{1, 11, 7, 2, 1, 3, 3},
                                  AttentionSizes{1, 5, 12, 2, 1, 3, 3}}) {
    for (const Setting& setting : settings()) {
      AttentionCase c = random_case(n);
      setting.apply(c);
      CAPTURE(setting.name);
      CAPTURE(n.tq);
      check_each_place(c, 7, {4, 1});  // with one key in a tile, all scores of a tile may be −inf
    }
  }
}

TEST_CASE("attention: NaN and Inf in bias, sinks, slopes and dlse show where they are used and nowhere else" *
          doctest::test_suite("slow")) {
  for (const AttentionSizes& n :
       {AttentionSizes{1, 9, 11, 2, 1, 3, 3}, AttentionSizes{1, 11, 7, 2, 1, 3, 3}}) {
    for (const Setting& setting : settings()) {
      AttentionCase c = random_case(n);
      setting.apply(c);
      CAPTURE(setting.name);
      CAPTURE(n.tq);
      const auto check_with = [&](auto&& add) {
        AttentionCase with = c;
        add(with);
        check_each_place(with, 13, {4, 1});
      };
      check_with([](AttentionCase& x) { add_bias(x, 1, 1); });
      check_with(add_alibi);
      check_with(add_dlse);
      check_with(add_sinks);
    }
  }
}

TEST_CASE("attention: a bias of -inf leaves a probability of 0, which hides no NaN") {
  AttentionCase c = random_case({1, 9, 11, 2, 1, 3, 3}, {.causal = true});
  add_bias(c, 1, 1);
  for (std::size_t at = 0; at < c.bias.data.size(); at += 3) c.bias.data[at] = -kInf;
  check_each_place(c, 5, {4, 1});
}

// Finite inputs, whose product is Inf − Inf for a query and a key that it does not see: long products are
// summed in parts. Scores that are merely large are tamed by the softcap.
TEST_CASE_TEMPLATE("attention: a product that overflows under the mask does no harm", T, float, double) {
  constexpr Index d = 160;
  const double large = std::is_same_v<T, float> ? 1e30 : 1e200;
  AttentionCase c = random_case({1, 10, 10, 1, 1, d, 3}, {.causal = true, .softcap = 2.0});
  std::fill_n(c.q.begin(), d, large);    // the first query
  std::fill_n(c.k.end() - d, d, large);  // and the last key
  std::fill_n(c.k.end() - 32, 32, -large);
  const auto expected = reference(c);
  for (const Kernel kernel : kKernels) {
    for (const Index tile : {0, 4}) {
      CAPTURE(kernel);
      CAPTURE(tile);
      c.options.tiles = {tile, tile};
      const auto r = run<T>(kernel, c);
      for (const auto* x : {&r.out, &r.dq, &r.dk, &r.dv})
        CHECK(std::all_of(x->begin(), x->end(), [](T e) { return std::isfinite(e); }));
      check_close(r, expected, 1e-5);
    }
  }
}

TEST_CASE("attention: NaN and Inf show where they are used and nowhere else in several tiles" *
          doctest::test_suite("slow")) {
  for (const Setting& setting : settings()) {
    AttentionCase c = random_case({1, 150, 150, 1, 1, 5, 5});
    setting.apply(c);
    CAPTURE(setting.name);
    check_each_place(c, 503, {0, 32});
  }
}

TEST_CASE("attention: NaN and Inf show where they are used and nowhere else on every SIMD target" *
          doctest::test_suite("slow")) {
  on_each_target([] {
    for (const Setting& setting : settings()) {
      AttentionCase c = random_case({1, 20, 40, 2, 1, 5, 5});
      setting.apply(c);
      add_bias(c, 1, 1);
      add_sinks(c);
      CAPTURE(setting.name);
      check_each_place(c, 101, {0});
    }
  });
}
