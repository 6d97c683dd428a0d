#include <string>

#include "tests/kernels/attention/attention_case.h"
#include "tests/kernels/simd_targets.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

struct NamedCase {
  std::string name;
  AttentionCase c;
};

// Problems with work to share out: several tiles of queries and of keys in each head, and in most of them
// fewer key/value heads than threads.
std::vector<NamedCase> shared_work() {
  const AttentionOptions small_tiles = {.causal = true, .tiles = {16, 16}};
  std::vector<NamedCase> cases;
  const auto add = [&](const char* name, const AttentionSizes& n, auto&& change) {
    cases.push_back({name, random_case(n, small_tiles)});
    change(cases.back().c);
  };
  add("MHA", {2, 75, 81, 3, 3, 9, 7}, [](AttentionCase&) {});
  add("GQA", {1, 75, 81, 4, 2, 9, 7}, [](AttentionCase&) {});
  add("MQA", {1, 75, 81, 4, 1, 9, 7}, [](AttentionCase&) {});
  add("full", {1, 75, 81, 2, 1, 9, 7}, [](AttentionCase& c) { c.options.causal = false; });
  add("few queries", {1, 3, 200, 4, 2, 9, 7}, [](AttentionCase&) {});
  add("one query", {1, 1, 400, 4, 1, 9, 7}, [](AttentionCase&) {});
  add("dropout", {1, 75, 81, 4, 2, 9, 7}, [](AttentionCase& c) { add_dropout(c, 0.2); });
  add("window", {1, 75, 81, 4, 2, 9, 7}, [](AttentionCase& c) { c.options.window.left = 20; });
  add("lengths", {2, 75, 81, 4, 2, 9, 7}, [](AttentionCase& c) { c.k_lengths = {33, 70}; });
  add("packed", {1, 75, 81, 4, 2, 9, 7}, [](AttentionCase& c) {
    c.cu_q = {0, 40, 40, 75};
    c.cu_k = {0, 50, 60, 81};
  });
  for (const Index b : {1, 2}) {
    for (const Index h : {1, 4})
      add("bias", {2, 75, 81, 4, 2, 9, 7}, [&](AttentionCase& c) { add_bias(c, b, h); });
  }
  add("bias of packed sequences", {1, 75, 81, 4, 2, 9, 7}, [](AttentionCase& c) {
    c.cu_q = {0, 40, 75};
    c.cu_k = {0, 50, 81};
    add_bias(c, 1, 1);
  });
  add("bias of padded keys", {3, 75, 81, 4, 2, 9, 7}, [](AttentionCase& c) {
    c.k_lengths = {33, 0, 70};
    add_bias(c, 1, 1);
  });
  add("sinks and dlse", {2, 75, 81, 4, 2, 9, 7}, [](AttentionCase& c) {
    add_sinks(c);
    add_dlse(c);
  });
  add("all at once", {2, 75, 81, 4, 2, 9, 7}, [](AttentionCase& c) {
    c.options.softcap = 2.0;
    add_dropout(c, 0.1);
    add_bias(c, 1, 1);
    add_mask(c, 2, 1);
    add_alibi(c);
    add_sinks(c);
  });
  return cases;
}

// Default tiles, several of them, and everything that a task may share with another.
AttentionCase large_case() {
  AttentionCase c = random_case({2, 203, 301, 4, 2, 24, 40}, {.causal = true});
  add_dropout(c, 0.1);
  add_bias(c, 1, 1);
  add_sinks(c);
  return c;
}

template <class T>
AttentionResult<T> run_on(int threads, Kernel kernel, const AttentionCase& c) {
  const kernels::ThreadScope scope(threads);
  return run<T>(kernel, c);
}

template <class T>
void check_thread_counts(Kernel kernel, const AttentionCase& c) {
  const auto one = run_on<T>(1, kernel, c);
  for (const int threads : thread_counts()) {
    CAPTURE(threads);
    CHECK(same_bits(run_on<T>(threads, kernel, c), one));
  }
}

}  // namespace

TEST_CASE_TEMPLATE("attention: the same bits for 1, 2, 3, 4 and 7 threads", T, float, double) {
  for (const Kernel kernel : kKernels) {
    for (const NamedCase& x : shared_work()) {
      CAPTURE(kernel);
      CAPTURE(x.name);
      check_thread_counts<T>(kernel, x.c);
    }
  }
}

TEST_CASE("attention: the same bits for 1, 2, 3, 4 and 7 threads with default tiles") {
  for (const Kernel kernel : kKernels) {
    CAPTURE(kernel);
    check_thread_counts<float>(kernel, large_case());
    check_thread_counts<float>(kernel, random_case({1, 300, 300, 2, 1, 33, 33}, {.causal = true}));
  }
}

TEST_CASE("attention: fifty repeats give the same bits" * doctest::test_suite("slow")) {
  for (const NamedCase& x : shared_work()) {
    for (const Kernel kernel : kKernels) {
      CAPTURE(x.name);
      CAPTURE(kernel);
      const kernels::ThreadScope scope(3);
      const auto first = run<float>(kernel, x.c);
      bool same = true;
      for (int repeat = 0; repeat < 50; ++repeat) same = same && same_bits(run<float>(kernel, x.c), first);
      CHECK(same);
    }
  }
}

TEST_CASE("attention: every SIMD target of this processor agrees with plain loops" *
          doctest::test_suite("slow")) {
  std::vector<NamedCase> cases = shared_work();
  cases.push_back({"large", large_case()});
  std::vector<AttentionResult<double>> expected;
  for (const NamedCase& x : cases) expected.push_back(reference(x.c));
  on_each_target([&] {
    for (std::size_t i = 0; i < cases.size(); ++i) {
      for (const Kernel kernel : kKernels) {
        CAPTURE(cases[i].name);
        CAPTURE(kernel);
        check_close(run(kernel, cases[i].c), expected[i]);
        check_close(run<float>(kernel, cases[i].c), expected[i], 2e-5);
      }
    }
  });
}
