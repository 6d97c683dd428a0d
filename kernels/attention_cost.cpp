#include "kernels/attention_cost.h"

#include <algorithm>
#include <limits>

namespace tilegrad::kernels {

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

}  // namespace tilegrad::kernels
