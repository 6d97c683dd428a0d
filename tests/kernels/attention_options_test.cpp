#include <functional>
#include <utility>

#include "tests/kernels/attention_problem_case.h"

using namespace tilegrad;
using namespace tilegrad::test;
using kernels::Align;

namespace {

struct Option {
  const char* name;
  std::function<void(OracleInputs&)> apply;
};

const std::vector<Option>& all_options() {
  static const std::vector<Option> options = {
      {"none", [](OracleInputs&) {}},
      {"causal", [](OracleInputs& in) { in.options.causal = true; }},
      {"top_left", [](OracleInputs& in) { in.options.align = Align::top_left; }},
      {"window left", [](OracleInputs& in) { in.options.window.left = 9; }},
      {"window right",
       [](OracleInputs& in) {
         if (!in.options.causal) in.options.window.right = 4;
       }},
      {"lengths",
       [](OracleInputs& in) {
         if (in.cu_q.empty()) in.k_lengths = {static_cast<std::int32_t>(in.n.tk * 2 / 3), 0};
       }},
      {"packed",
       [](OracleInputs& in) {
         if (!in.k_lengths.empty() || in.n.b != 1) return;
         const auto tq = static_cast<std::int32_t>(in.n.tq), tk = static_cast<std::int32_t>(in.n.tk);
         in.cu_q = {0, tq / 3, tq / 3, tq / 2, tq};
         in.cu_k = {0, tk / 5, tk / 3, tk / 3, tk};
       }},
      {"mask", [](OracleInputs& in) { add_mask(in, 1, in.n.hq); }},
      {"bias of each head", [](OracleInputs& in) { add_bias(in, in.n.b, in.n.hq); }},
      {"bias of all heads", [](OracleInputs& in) { add_bias(in, 1, 1); }},
      {"alibi", [](OracleInputs& in) { add_alibi(in); }},
      {"softcap", [](OracleInputs& in) { in.options.softcap = 1.5; }},
      {"sinks", [](OracleInputs& in) { add_sinks(in); }},
      {"dropout",
       [](OracleInputs& in) {
         in.options.dropout = 0.3;
         in.options.dropout_key = RandomKey{99};
       }},
      {"scale", [](OracleInputs& in) { in.options.scale = -0.3; }},
      {"dlse", [](OracleInputs& in) { add_dlse(in); }},
  };
  return options;
}

}  // namespace

TEST_CASE("attention options: each and all pairs agree with plain loops, on both kernels") {
  for (const OracleSizes& n : {OracleSizes{2, 37, 45, 4, 2, 5, 7}, OracleSizes{1, 70, 50, 2, 1, 16, 3}}) {
    for (const Option& a : all_options()) {
      for (const Option& b : all_options()) {
        OracleInputs in = random_problem(n);
        a.apply(in);
        if (a.name != b.name) b.apply(in);
        if (n.b == 1 && in.k_lengths.size() == 2) in.k_lengths.resize(1);
        const OracleResult expected = Oracle(in).run();
        for (const Which which : kBoth) {
          CAPTURE(a.name);
          CAPTURE(b.name);
          CAPTURE(n.b);
          CAPTURE(which);
          check_near(run_kernel<double>(which, in), expected);
        }
      }
    }
  }
}

TEST_CASE("attention options: long ragged sequences of several tiles agree with plain loops") {
  for (const Option& a : all_options()) {
    OracleInputs in = random_problem({1, 301, 333, 2, 1, 33, 20});
    a.apply(in);
    if (in.k_lengths.size() == 2) in.k_lengths.resize(1);
    const OracleResult expected = Oracle(in).run();
    for (const Which which : kBoth) {
      CAPTURE(a.name);
      CAPTURE(which);
      check_near(run_kernel<double>(which, in), expected);
    }
  }
}

TEST_CASE("attention options: a window of 10 in 640 keys with half the queries beyond the keys") {
  for (const Align align : {Align::top_left, Align::bottom_right}) {
    for (const auto& [tq, tk] : {std::pair<Index, Index>{640, 640}, {640, 320}, {320, 640}}) {
      OracleInputs in = random_problem({1, tq, tk, 1, 1, 8, 8}, {.causal = true, .align = align});
      in.options.window.left = 10;
      const OracleResult expected = Oracle(in).run();
      for (const Which which : kBoth) {
        CAPTURE(which);
        CAPTURE(tq);
        check_near(run_kernel<double>(which, in), expected);
      }
    }
  }
}
