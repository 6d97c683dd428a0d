#include "tilegrad/train/measure/attention_workload.h"

#include "tilegrad/autograd/tape.h"

namespace tilegrad::train {

namespace {

// Each element is 0 or 1, with equal chances.
Tensor random_mask(Index tq, Index tk, RandomKey key) {
  Tensor mask = Tensor::empty({1, 1, tq, tk}, Dtype::u8);
  RandomStream stream(key);
  std::uint64_t bits = 0;
  Index i = 0;
  for (std::uint8_t& visible : mask.mut<std::uint8_t>()) {
    bits = i++ % 64 == 0 ? stream.bits() : bits >> 1;
    visible = bits & 1;
  }
  return mask;
}

}  // namespace

AttentionWorkload::AttentionWorkload(const AttentionProblem& p, RandomKey key, const WorkloadParts& parts)
    : options_(p.options) {
  const auto random = [&](Index time, Index heads, std::uint64_t part) {
    return Tensor::normal({p.batch, time, heads, p.head_size}, compute_dtype(p.dtype), key.fold(part),
                          parts.std)
        .cast(p.dtype);
  };
  q_ = random(p.tq, p.heads, 0);
  k_ = random(p.tk, p.kv_heads, 1);
  v_ = random(p.tk, p.kv_heads, 2);
  if (parts.backward) dout_ = random(p.tq, p.heads, 3);
  if (parts.random_mask) extras_.mask = random_mask(p.tq, p.tk, key.fold(4));
}

AttentionWorkload::Attend AttentionWorkload::by(AttentionKernel kernel) const {
  return [this, kernel](const Var& q, const Var& k, const Var& v) {
    return attention(q, k, v, kernel, options_, extras_);
  };
}

Tensor AttentionWorkload::forward(const Attend& attend) const { return attend(q_, k_, v_).value(); }

AttentionWorkload::Results AttentionWorkload::step(const Attend& attend,
                                                   const std::function<void()>& between) const {
  const Var q = Var::leaf(q_), k = Var::leaf(k_), v = Var::leaf(v_);
  Tape tape;
  const Var out = attend(q, k, v);
  if (between) between();
  tape.backward(out, dout_);
  return {.out = out.value(), .grads = {q.grad(), k.grad(), v.grad()}};
}

}  // namespace tilegrad::train
