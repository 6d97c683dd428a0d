#include "tilegrad/kernels/attention/flash.h"

#include "tilegrad/kernels/attention/types.h"

namespace tilegrad::kernels {

namespace {

template <class Stored>
FlashInputs<Compute<Stored>> inputs(const AttentionInputs<Stored>& in) {
  return {.q = in.q, .k = in.k, .v = in.v};
}

}  // namespace

template <class Stored>
void flash_attention(HeadsView<Stored> out, std::span<Compute<Stored>> lse, const AttentionInputs<Stored>& in,
                     const AttentionOptions& options) {
  const AttentionProblem<Compute<Stored>> problem(in, options);
  if constexpr (std::is_same_v<Stored, Compute<Stored>>) {
    if (problem.is_decode()) return flash_decode(out, lse, inputs(in), problem);
  }
  flash_forward(out, lse, inputs(in), problem);
}

template <class Stored>
void flash_attention_backward(const AttentionGrads<Stored>& grads, HeadsView<const Stored> dout,
                              const AttentionInputs<Stored>& in, HeadsView<const Stored> out,
                              std::span<const Compute<Stored>> lse, const AttentionOptions& options,
                              std::span<const Compute<Stored>> dlse) {
  flash_backward({.dq = {grads.dq.to, grads.dq.write},
                  .dk = {grads.dk.to, grads.dk.write},
                  .dv = {grads.dv.to, grads.dv.write},
                  .dbias = grads.dbias,
                  .dsinks = grads.dsinks},
                 inputs(in), {.out = out, .dout = dout, .lse = lse, .dlse = dlse},
                 AttentionProblem<Compute<Stored>>(in, options));
}

#define TILEGRAD_INSTANTIATE(T)                                                                    \
  template void flash_attention<T>(HeadsView<T>, std::span<Compute<T>>, const AttentionInputs<T>&, \
                                   const AttentionOptions&);                                       \
  template void flash_attention_backward<T>(                                                       \
      const AttentionGrads<T>&, HeadsView<const T>, const AttentionInputs<T>&, HeadsView<const T>, \
      std::span<const Compute<T>>, const AttentionOptions&, std::span<const Compute<T>>);
TILEGRAD_FOR_ATTENTION_TYPES(TILEGRAD_INSTANTIATE)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels
