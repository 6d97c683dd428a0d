#pragma once

#include <doctest/doctest.h>
#include <hwy/targets.h>

#include <cstdint>
#include <string>

namespace tilegrad::test {

/// While it lives, kernels run the code of one SIMD target.
class ForcedTarget {
 public:
  explicit ForcedTarget(std::int64_t target) { choose(target); }
  ~ForcedTarget() { choose(0); }
  ForcedTarget(const ForcedTarget&) = delete;
  ForcedTarget& operator=(const ForcedTarget&) = delete;

 private:
  static void choose(std::int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

/// Calls f() once for every SIMD target that this processor can run.
template <class F>
void on_each_target(F&& f) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    const ForcedTarget scope(target);
    const std::string name = hwy::TargetName(target);
    CAPTURE(name);
    REQUIRE(hwy::SupportedTargets() == target);
    f();
  }
}

}  // namespace tilegrad::test
