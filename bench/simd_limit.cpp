#include "bench/simd_limit.h"

#include <hwy/targets.h>

#include <cstdlib>
#include <string_view>

#include "tilegrad/base/error.h"

namespace tilegrad::bench {

void limit_simd() {
  const char* value = std::getenv("TILEGRAD_BENCH_SIMD");
  if (value == nullptr) return;
  check(std::string_view(value) == "AVX2", "TILEGRAD_BENCH_SIMD is `{}`; it can be AVX2", value);
  // A better target is a lower bit. (Highway 1.0 forgets what DisableTargets() said once it is asked what is supported.)
  hwy::SetSupportedTargetsForTest(hwy::SupportedTargets() & ~(HWY_AVX2 - 1));
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace tilegrad::bench
