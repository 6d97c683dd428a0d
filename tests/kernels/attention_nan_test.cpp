#include <functional>
#include <string>
#include <utility>

#include "tests/kernels/attention_case.h"

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

// The inputs that may hold a NaN; those that are not given are empty.
std::pair<std::string, std::vector<double>*> input(AttentionCase& c, int number) {
  switch (number) {
    case 0:
      return {"q", &c.q};
    case 1:
      return {"k", &c.k};
    case 2:
      return {"v", &c.v};
    case 3:
      return {"dout", &c.dout};
    case 4:
      return {"bias", &c.bias.data};
    case 5:
      return {"sinks", &c.sinks};
    case 6:
      return {"alibi", &c.alibi};
    default:
      return {"dlse", &c.dlse};
  }
}
constexpr int kInputs = 8;

// Puts NaN, Inf and −Inf to every `step`-th place of each input. The plain loops touch nothing but what a
// query sees, so they say where it must show.
void check_each_place(AttentionCase c, std::size_t step, std::initializer_list<Index> tiles) {
  for (int number = 0; number < kInputs; ++number) {
    const auto [name, x] = input(c, number);
    for (std::size_t at = 0; at < x->size(); at += step) {
      for (const double bad : {kNan, kInf, -kInf}) {
        const double good = std::exchange((*x)[at], bad);
        const auto expected = reference(c);
        for (const Index tile : tiles) {
          c.options.tiles = {tile, tile};
          for (const Kernel kernel : kKernels) {
            INFO(kernel, ", tile ", tile, ": ", name, "[", at, "] is ", bad);
            check_close(run(kernel, c), expected);
          }
        }
        (*x)[at] = good;
      }
    }
  }
}

}  // namespace

TEST_CASE("attention: NaN and Inf show where they are used and nowhere else") {
  for (const auto& [tq, tk] : {std::pair<Index, Index>{10, 10}, {11, 7}, {5, 12}}) {
    for (const Setting& setting : settings()) {
      AttentionCase c = random_case({1, tq, tk, 2, 1, 3, 3});
      setting.apply(c);
      CAPTURE(setting.name);
      CAPTURE(tq);
      check_each_place(c, 7, {4, 1});  // with one key in a tile, all scores of a tile may be −inf
    }
  }
}

TEST_CASE(
    "attention: NaN and Inf in bias, sinks, slopes and dlse show where they are used and nowhere else") {
  for (const Setting& setting : settings()) {
    AttentionCase c = random_case({1, 9, 11, 2, 1, 3, 3});
    setting.apply(c);
    CAPTURE(setting.name);
    const auto check_with = [&](auto&& add) {
      AttentionCase with = c;
      add(with);
      check_each_place(with, 13, {4, 1});
    };
    check_with([](AttentionCase& x) { add_bias(x, 1, 1); });
    check_with([](AttentionCase& x) { add_sinks(x); });
    check_with([](AttentionCase& x) { add_alibi(x); });
    check_with([](AttentionCase& x) { add_dlse(x); });
  }
}

TEST_CASE("attention: NaN and Inf show where they are used and nowhere else in several tiles") {
  for (const Setting& setting : settings()) {
    AttentionCase c = random_case({1, 150, 150, 1, 1, 5, 5});
    setting.apply(c);
    CAPTURE(setting.name);
    check_each_place(c, 503, {0, 32});
  }
}
