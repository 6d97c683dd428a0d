// flash_forward-inl.h, compiled for double: a file for each type, which are built side by side.
#include "tilegrad/kernels/attention/flash.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/attention/flash_forward_f64.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/attention/flash_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

void forward(const StoredHeads<double>& out, std::span<double> lse, const FlashInputs<double>& in,
             const AttentionProblem<double>& problem) {
  FlashForward<double>(out, lse, in, problem).run();
}

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels {

HWY_EXPORT(forward);

void flash_forward(const StoredHeads<double>& out, std::span<double> lse, const FlashInputs<double>& in,
                   const AttentionProblem<double>& problem) {
  HWY_DYNAMIC_DISPATCH(forward)(out, lse, in, problem);
}

}  // namespace tilegrad::kernels
#endif
