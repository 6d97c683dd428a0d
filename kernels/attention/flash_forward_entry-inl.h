// flash_forward-inl.h compiled for `Real` and for each SIMD target: the body of flash_forward_f32.cpp and
// flash_forward_f64.cpp. Highway includes it again for each target, so it has no guard.
#include "tilegrad/kernels/attention/flash.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/attention/flash_forward_entry-inl.h"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/attention/flash_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

void forward(const StoredHeads<Real>& out, std::span<Real> lse, const FlashInputs<Real>& in,
             const AttentionProblem<Real>& problem) {
  FlashForward<Real>(out, lse, in, problem).run();
}

MicroKernel micro_kernel() { return kMicroKernel<Real>; }

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels {

HWY_EXPORT(forward);

void flash_forward(const StoredHeads<Real>& out, std::span<Real> lse, const FlashInputs<Real>& in,
                   const AttentionProblem<Real>& problem) {
  HWY_DYNAMIC_DISPATCH(forward)(out, lse, in, problem);
}

HWY_EXPORT(micro_kernel);

MicroKernel flash_micro_kernel(Real) { return HWY_DYNAMIC_DISPATCH(micro_kernel)(); }

}  // namespace tilegrad::kernels
#endif
