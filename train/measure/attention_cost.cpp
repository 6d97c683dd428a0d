#include "tilegrad/train/measure/attention_cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace tilegrad::train {

namespace {

// B · Hq · pairs; in double, which holds the sizes of any call.
double all_pairs(const AttentionProblem& p) {
  return static_cast<double>(p.batch) * static_cast<double>(p.heads) *
         static_cast<double>(visible_pairs(p.tq, p.tk, p.options));
}

}  // namespace

std::string describe(const AttentionProblem& p) {
  std::string text = fmt::format("q {}, k and v {}, {}", Shape{p.batch, p.tq, p.heads, p.head_size},
                                 Shape{p.batch, p.tk, p.kv_heads, p.head_size}, p.dtype);
  if (p.options.causal) text += ", causal";
  if (p.options.window.left) text += fmt::format(", {} keys to the left", *p.options.window.left);
  if (p.options.window.right) text += fmt::format(", {} keys to the right", *p.options.window.right);
  return text;
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

double attention_flops(const AttentionProblem& problem, Phase phase) {
  const double products = phase == Phase::forward ? 2 : 5;
  return products * 2 * all_pairs(problem) * static_cast<double>(problem.head_size);
}

double moved_bytes(const AttentionProblem& p, AttentionKernel kernel, Phase phase, Index cache_bytes) {
  const bool forward = phase == Phase::forward;
  const double size = static_cast<double>(p.head_size), stored = static_cast<double>(bytes_of(p.dtype));
  const double computed = static_cast<double>(bytes_of(compute_dtype(p.dtype)));
  const double rows = static_cast<double>(p.batch) * static_cast<double>(p.heads * p.tq + p.kv_heads * p.tk);
  const double tensors = (forward ? 2 : 4) * stored * rows * size;
  if (kernel == AttentionKernel::naive) return tensors + (forward ? 4 : 7) * computed * all_pairs(p);
  const double streamed = forward ? 2 * stored : 2 * stored + 2 * computed;
  const double cached = static_cast<double>(cache_bytes) / computed;
  return tensors + streamed * all_pairs(p) * size * size / cached;
}

}  // namespace tilegrad::train
