#include <hwy/targets.h>

#include "tests/kernels/attention_problem_case.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

OracleInputs busy_problem() {
  OracleInputs in = random_problem({2, 203, 301, 4, 2, 24, 40}, {.causal = true, .dropout = 0.1});
  add_bias(in, 1, 1);
  add_sinks(in);
  return in;
}

template <class T>
bool same_bits(const Results<T>& a, const Results<T>& b) {
  return a == b;
}

}  // namespace

TEST_CASE("attention: the same bits for 1, 2, 3, 4 and 7 threads, and again and again") {
  const int before = kernels::threads();
  const OracleInputs with_options = busy_problem(),
                     plain = random_problem({1, 300, 300, 2, 1, 33, 33}, {.causal = true});
  for (const OracleInputs* in : {&with_options, &plain}) {
    for (const Which which : kBoth) {
      kernels::set_threads(1);
      const Results<float> one = run_kernel<float>(which, *in);
      for (const int count : {2, 3, 4, 7}) {
        kernels::set_threads(count);
        CAPTURE(count);
        for (int repeat = 0; repeat < 12; ++repeat) CHECK(same_bits(run_kernel<float>(which, *in), one));
      }
    }
  }
  kernels::set_threads(before);
}

TEST_CASE("attention: every SIMD target of this processor agrees with plain loops") {
  const OracleInputs in = busy_problem();
  const OracleResult expected = Oracle(in).run();
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    CAPTURE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    check_near(run_kernel<double>(Which::flash, in), expected);
    check_near(run_kernel<float>(Which::flash, in), expected, 2e-5);
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

TEST_CASE("attention: NaN in a key, a value or a query shows where it is seen and nowhere else") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const Which which : kBoth) {
    for (const int part : {0, 1, 2, 3}) {
      OracleInputs in = random_problem({1, 150, 150, 1, 1, 20, 20}, {.causal = true});
      const Index at = 100;
      std::vector<double>& x = part == 0 ? in.q : part == 1 ? in.k : part == 2 ? in.v : in.dout;
      x[static_cast<std::size_t>(at * 20 + 3)] = nan;
      const Results<double> r = run_kernel<double>(which, in);
      const auto clean = [&](const std::vector<double>& y, Index begin, Index end) {
        for (Index i = begin * 20; i < end * 20; ++i) {
          if (!std::isfinite(y[static_cast<std::size_t>(i)])) return false;
        }
        return true;
      };
      CAPTURE(which);
      CAPTURE(part);
      CHECK(clean(r.out, 0, at));  // queries before see nothing of it
      CHECK(clean(r.dq, 0, at));
      CHECK(clean(r.dk, at + 1, 150) == (part == 0 || part == 3));
      CHECK(clean(r.dv, at + 1, 150) == (part != 1));
      if (part == 0) CHECK(clean(r.out, at + 1, 150));
    }
  }
}
