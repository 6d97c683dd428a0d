// flash_backward-inl.h compiled for `Real` and for each SIMD target: the body of flash_backward_f32.cpp and
// flash_backward_f64.cpp. Highway includes it again for each target, so it has no guard.
#include "tilegrad/kernels/attention/flash.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/attention/flash_backward_entry-inl.h"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/attention/flash_backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

void backward(const FlashGrads<Real>& grads, const FlashInputs<Real>& in, const FlashOutputs<Real>& y,
              const AttentionProblem<Real>& problem) {
  const BackwardSchedule::BiasGrad dbias = {.wanted = static_cast<bool>(grads.dbias),
                                            .over_batch = grads.dbias.to.stride_b == 0,
                                            .over_heads = grads.dbias.to.stride_h == 0};
  const BackwardSchedule schedule(problem, kMicroKernel<Real>, dbias, threads());
  FlashBackward<Real>(grads, in, y, problem, schedule).run();
}

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels {

HWY_EXPORT(backward);

void flash_backward(const FlashGrads<Real>& grads, const FlashInputs<Real>& in, const FlashOutputs<Real>& y,
                    const AttentionProblem<Real>& problem) {
  HWY_DYNAMIC_DISPATCH(backward)(grads, in, y, problem);
}

}  // namespace tilegrad::kernels
#endif
