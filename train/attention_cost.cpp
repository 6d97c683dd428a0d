#include "train/attention_cost.h"

#include <algorithm>
#include <limits>

namespace tilegrad::train {

namespace {

// B Hq pairs
double all_pairs(const AttentionSizes& s) {
  return static_cast<double>(s.batch) * static_cast<double>(s.heads) * static_cast<double>(s.pairs);
}

}  // namespace

std::string_view name(Pass pass) { return pass == Pass::forward ? "forward" : "backward"; }

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
  const double forward = 4 * all_pairs(sizes) * static_cast<double>(sizes.dim);
  return pass == Pass::forward ? forward : 2.5 * forward;
}

double moved_bytes(const AttentionSizes& s, AttentionKernel kernel, Pass pass, Index element_bytes,
                   Index cache_bytes) {
  const bool forward = pass == Pass::forward;
  const double dim = static_cast<double>(s.dim), element = static_cast<double>(element_bytes);
  const double rows = static_cast<double>(s.batch) * static_cast<double>(s.heads * s.tq + s.kv_heads * s.tk);
  const double tensors = (forward ? 2 : 4) * rows * dim;
  if (kernel == AttentionKernel::naive) return element * (tensors + (forward ? 4 : 7) * all_pairs(s));
  const double cached = static_cast<double>(cache_bytes) / element;
  return element * (tensors + (forward ? 2 : 4) * all_pairs(s) * dim * dim / cached);
}

}  // namespace tilegrad::train
