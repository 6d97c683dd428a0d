#include "train/attention_traffic.h"

namespace tilegrad::train {

double moved_bytes(const AttentionSizes& s, AttentionKernel kernel, Pass pass, Index element_bytes,
                   Index cache_bytes) {
  const bool forward = pass == Pass::forward;
  const double dim = static_cast<double>(s.dim), element = static_cast<double>(element_bytes);
  const double rows = static_cast<double>(s.batch) * static_cast<double>(s.heads * s.tq + s.kv_heads * s.tk);
  const double tensors = (forward ? 2 : 4) * rows * dim;
  if (kernel == AttentionKernel::naive) return element * (tensors + (forward ? 4 : 7) * s.all_pairs());
  const double cached = static_cast<double>(cache_bytes) / element;
  return element * (tensors + (forward ? 2 : 4) * s.all_pairs() * dim * dim / cached);
}

}  // namespace tilegrad::train
