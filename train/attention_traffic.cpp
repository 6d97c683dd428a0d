#include "train/attention_traffic.h"

namespace tilegrad::train {

double moved_bytes(const AttentionSizes& s, AttentionKernel kernel, Pass pass, Dtype dtype,
                   Index cache_bytes) {
  const bool forward = pass == Pass::forward;
  const double dim = static_cast<double>(s.dim), stored = static_cast<double>(bytes_of(dtype));
  const double computed = static_cast<double>(bytes_of(compute_dtype(dtype)));
  const double rows = static_cast<double>(s.batch) * static_cast<double>(s.heads * s.tq + s.kv_heads * s.tk);
  const double tensors = (forward ? 2 : 4) * stored * rows * dim;
  if (kernel == AttentionKernel::naive) return tensors + (forward ? 4 : 7) * computed * s.all_pairs();
  const double passing = forward ? 2 * stored : 2 * stored + 2 * computed;
  const double cached = static_cast<double>(cache_bytes) / computed;
  return tensors + passing * s.all_pairs() * dim * dim / cached;
}

}  // namespace tilegrad::train
