#include "tilegrad/train/measure/attention_cost.h"

#include <algorithm>
#include <limits>

namespace tilegrad::train {

std::string_view name(Pass pass) { return pass == Pass::forward ? "forward" : "backward"; }

// In double, where the sizes of no call are too large.
double AttentionSizes::all_pairs() const {
  return static_cast<double>(batch) * static_cast<double>(heads) * static_cast<double>(pairs);
}

Index visible_pairs(Index tq, Index tk, const AttentionOptions& options) {
  constexpr Index kUnbounded = std::numeric_limits<Index>::max() / 4;
  const Index left = std::min(options.window.left.value_or(kUnbounded), kUnbounded);
  const Index right = options.causal ? 0 : std::min(options.window.right.value_or(kUnbounded), kUnbounded);
  const Index offset = options.align == Align::bottom_right ? tk - tq : 0;
  Index pairs = 0;
  for (Index i = 0; i < tq; ++i) {
    const Index begin = std::max<Index>(i + offset - left, 0), end = std::min(i + offset + right + 1, tk);
    pairs += std::max<Index>(end - begin, 0);
  }
  return pairs;
}

double attention_flops(const AttentionSizes& sizes, Pass pass) {
  const double products = pass == Pass::forward ? 2 : 5;
  return products * 2 * sizes.all_pairs() * static_cast<double>(sizes.dim);
}

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
