// Exact flash attention, forward and backward: 4 query heads that share 2 key/value heads.
#include "tilegrad/attention.h"

#include <cstdio>

int main() {
  using namespace tilegrad;
  const Index batch = 1, time = 256, head_size = 32;
  const Var q = Var::leaf(Tensor::normal({batch, time, 4, head_size}, Dtype::f32, RandomKey{1}));
  const Var k = Var::leaf(Tensor::normal({batch, time, 2, head_size}, Dtype::f32, RandomKey{2}));
  const Var v = Var::leaf(Tensor::normal({batch, time, 2, head_size}, Dtype::f32, RandomKey{3}));

  Tape tape;
  const Var out = attention(q, k, v, AttentionKernel::flash, {.causal = true});
  tape.backward(mean(mul(out, out)));

  std::printf("out[0] = %.4f, dq[0] = %.2e, dk[0] = %.2e, dv[0] = %.2e\n", out.value().at(0), q.grad().at(0),
              k.grad().at(0), v.grad().at(0));
}
