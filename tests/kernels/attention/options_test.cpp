#include <functional>
#include <string>

#include "tests/kernels/attention/attention_case.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

// An option, put on a case unless it would contradict one that is there.
struct Option {
  std::string name;
  std::function<void(AttentionCase&)> apply;
};

const std::vector<Option>& all_options() {
  static const std::vector<Option> options = {
      {"none", [](AttentionCase&) {}},
      {"causal", [](AttentionCase& c) { c.options.causal = true; }},
      {"top left", [](AttentionCase& c) { c.options.align = Align::top_left; }},
      {"window left", [](AttentionCase& c) { c.options.window.left = 9; }},
      {"window right",
       [](AttentionCase& c) {
         if (!c.options.causal) c.options.window.right = 4;
       }},
      {"lengths",
       [](AttentionCase& c) {
         const auto tk = static_cast<std::int32_t>(c.n.tk);
         for (Index b = c.n.b; b > 0; --b) c.k_lengths.push_back(b % 2 == 1 ? (2 * tk + 2) / 3 : 0);
       }},
      {"packed",
       [](AttentionCase& c) {
         if (!c.k_lengths.empty() || c.n.b != 1) return;
         const auto tq = static_cast<std::int32_t>(c.n.tq), tk = static_cast<std::int32_t>(c.n.tk);
         c.cu_q = {0, tq / 3, tq / 3, tq / 2, tq};
         c.cu_k = {0, tk / 5, tk / 3, tk / 3, tk};
       }},
      {"mask", [](AttentionCase& c) { add_mask(c, 1, 1); }},
      {"mask of each head", [](AttentionCase& c) { add_mask(c, 1, c.n.hq); }},
      {"mask of each batch row", [](AttentionCase& c) { add_mask(c, c.n.b, 1); }},
      {"bias", [](AttentionCase& c) { add_bias(c, 1, 1); }},
      {"bias of each head", [](AttentionCase& c) { add_bias(c, 1, c.n.hq); }},
      {"bias of each batch row", [](AttentionCase& c) { add_bias(c, c.n.b, 1); }},
      {"bias of each batch row and head", [](AttentionCase& c) { add_bias(c, c.n.b, c.n.hq); }},
      {"alibi", add_alibi},
      {"softcap", [](AttentionCase& c) { c.options.softcap = 1.5; }},
      {"sinks", add_sinks},
      {"dropout", [](AttentionCase& c) { add_dropout(c, 0.3); }},
      {"negative scale", [](AttentionCase& c) { c.options.scale = -0.3; }},
      {"dlse", add_dlse},
  };
  return options;
}

// Both kernels against plain loops, and against each other.
void check_kernels(const AttentionCase& c) {
  const auto expected = reference(c), naive = run(Kernel::naive, c), flash = run(Kernel::flash, c);
  {
    INFO("naive and plain loops");
    check_close(naive, expected);
  }
  {
    INFO("flash and plain loops");
    check_close(flash, expected);
  }
  INFO("flash and naive");
  check_close(flash, naive);
}

}  // namespace

TEST_CASE("attention options: each and all pairs agree with plain loops, on both kernels") {
  for (const AttentionSizes& n :
       {AttentionSizes{2, 37, 45, 4, 2, 5, 7}, AttentionSizes{1, 70, 50, 2, 1, 16, 3},
        AttentionSizes{2, 1, 41, 6, 2, 9, 4}, AttentionSizes{2, 35, 1, 3, 3, 1, 1}}) {
    for (auto a = all_options().begin(); a != all_options().end(); ++a) {
      for (auto b = a; b != all_options().end(); ++b) {
        // A sanitizer has the pairs in the smaller problems.
        if (kSanitized && a != b && n.lse_size() * n.tk > 10'000) continue;
        AttentionCase c = random_case(n);
        a->apply(c);
        if (a != b) b->apply(c);
        CAPTURE(a->name);
        CAPTURE(b->name);
        CAPTURE(n.tq);
        check_kernels(c);
      }
    }
  }
}

TEST_CASE("attention options: long ragged sequences of several tiles agree with plain loops" *
          doctest::test_suite("slow")) {
  for (const AttentionSizes& n :
       {AttentionSizes{1, 301, 333, 2, 1, 33, 20}, AttentionSizes{2, 67, 300, 3, 1, 8, 130},
        AttentionSizes{1, 10, 71, 2, 2, 300, 512}}) {
    for (const Option& a : all_options()) {
      AttentionCase c = random_case(n);
      a.apply(c);
      CAPTURE(a.name);
      CAPTURE(n.tq);
      check_kernels(c);
    }
  }
}

TEST_CASE("attention options: all that go together at once, for any tiles") {
  for (const bool packed : {false, true}) {
    for (const kernels::TileSizes& tiles : {kernels::TileSizes{0, 0}, kernels::TileSizes{16, 16},
                                            kernels::TileSizes{7, 40}, kernels::TileSizes{40, 7}}) {
      AttentionCase c = random_case({packed ? 1 : 2, 75, 90, 4, 2, 12, 20},
                                    {.causal = true, .softcap = 2.0, .tiles = tiles});
      for (const char* name : {"window left", packed ? "packed" : "lengths", "mask of each head",
                               "bias of each batch row", "alibi", "sinks", "dropout", "dlse"}) {
        for (const Option& option : all_options()) {
          if (option.name == name) option.apply(c);
        }
      }
      CAPTURE(packed);
      CAPTURE(tiles.queries);
      CAPTURE(tiles.keys);
      check_kernels(c);
    }
  }
}
