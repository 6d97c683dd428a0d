// flash_backward-inl.h, compiled for double: a file for each type, which are built side by side.
#include "tilegrad/kernels/attention/flash.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/attention/flash_backward_f64.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/attention/flash_backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

void backward(const FlashGrads<double>& grads, const FlashInputs<double>& in, const FlashOutputs<double>& y,
              const AttentionProblem<double>& problem) {
  const BackwardSchedule::BiasGrad dbias = {.wanted = static_cast<bool>(grads.dbias),
                                            .over_batch = grads.dbias.to.stride_b == 0,
                                            .over_heads = grads.dbias.to.stride_h == 0};
  const BackwardSchedule schedule(problem, kMicroKernel<double>, dbias, threads());
  FlashBackward<double>(grads, in, y, problem, schedule).run();
}

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels {

HWY_EXPORT(backward);

void flash_backward(const FlashGrads<double>& grads, const FlashInputs<double>& in,
                    const FlashOutputs<double>& y, const AttentionProblem<double>& problem) {
  HWY_DYNAMIC_DISPATCH(backward)(grads, in, y, problem);
}

}  // namespace tilegrad::kernels
#endif
