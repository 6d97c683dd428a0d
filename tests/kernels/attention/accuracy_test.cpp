#include "tests/kernels/attention/attention_case.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

struct Lengths {
  Index q, k;
};

double relative_error(const std::vector<float>& x, const std::vector<double>& exact) {
  double largest = 0, size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(x[i]) - exact[i]));
    size = std::max(size, std::abs(exact[i]));
  }
  return largest / size;
}

// The errors of one kernel in f32, relative to the largest element of each tensor.
struct Errors {
  double out = 0, dq = 0, dk = 0, dv = 0;

  void raise_to(const AttentionResult<float>& r, const AttentionResult<double>& exact) {
    out = std::max(out, relative_error(r.out, exact.out));
    dq = std::max(dq, relative_error(r.dq, exact.dq));
    dk = std::max(dk, relative_error(r.dk, exact.dk));
    dv = std::max(dv, relative_error(r.dv, exact.dv));
  }
};

struct Ratios {
  double value = 0, gradient = 0;

  void check(const Errors& flash, const Errors& naive) {
    CHECK(flash.out <= 2 * naive.out);
    CHECK(flash.dq <= 3 * naive.dq);
    CHECK(flash.dk <= 3 * naive.dk);
    CHECK(flash.dv <= 3 * naive.dv);
    value = std::max(value, flash.out / naive.out);
    gradient = std::max({gradient, flash.dq / naive.dq, flash.dk / naive.dk, flash.dv / naive.dv});
  }
};

// Holds the error of flash against that of naive for each head size, full and causal. How well a single query
// comes out is luck, so the worst of some draws is compared. The truth is naive in f64, since plain loops
// would take minutes: other tests hold it against them to 1e-12, and the errors that count here begin at
// 1e-8.
void check_errors(const Lengths& t, Index heads, int draws) {
  Ratios worst;
  for (const Index d : {32, 40, 59, 64, 80, 96, 111, 128, 256}) {
    Errors naive[2], flash[2];
    for (int draw = 0; draw < draws; ++draw) {
      AttentionCase c = random_case({1, t.q, t.k, heads, 1, d, d}, {}, static_cast<std::uint64_t>(10 * draw));
      for (const bool causal : {false, true}) {
        c.options.causal = causal;
        const auto exact = run<double>(Kernel::naive, c);
        naive[causal].raise_to(run<float>(Kernel::naive, c), exact);
        flash[causal].raise_to(run<float>(Kernel::flash, c), exact);
      }
    }
    for (const bool causal : {false, true}) {
      CAPTURE(t.q);
      CAPTURE(t.k);
      CAPTURE(d);
      CAPTURE(causal);
      worst.check(flash[causal], naive[causal]);
    }
  }
  MESSAGE(t.q, " x ", t.k, ": error of flash over error of naive: ", worst.value, " for values, ",
          worst.gradient, " for gradients");
}

}  // namespace

TEST_CASE("attention: in f32 the error of flash is at most twice that of naive, thrice for gradients") {
  check_errors({113, 203}, 2, 1);
  check_errors({1, 239}, 2, 32);
  check_errors({3, 799}, 2, 12);
}

// CTest runs this as a test of its own, where no sanitizer slows it down.
TEST_CASE("attention: ... and so it is for lengths of a thousand" * doctest::skip()) {
  check_errors({1023, 1024}, 1, 1);
  check_errors({1024, 1023}, 1, 1);
}
