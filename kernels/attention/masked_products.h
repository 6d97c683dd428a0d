#pragma once

#include "tilegrad/kernels/attention/problem.h"

/// The rule that keeps NaN and Inf where they belong, for forward and backward, flash and naive. Private to
/// kernels/.
///
/// A pair of query and key that a mask hides has probability 0 and gradient 0. In a product over a whole tile
/// that zero meets what the mask hides, and 0 · NaN is NaN: one bad value would reach queries that do not see
/// it. So before a tile with masked pairs is multiplied, the factor that they meet is checked (`all_finite`).
/// If it holds a NaN or an Inf, the product is formed pair by pair, over the visible ones alone. That is
/// rare, hence plain loops.
///
/// A bias of −inf leaves a probability of 0 that hides no NaN, as in other frameworks. But a query whose keys
/// are all hidden, by a mask or by such a bias, sees nothing: it reads nothing, and gets and gives no
/// gradient.
namespace tilegrad::kernels {

/// Queries and keys of one head.
struct Pairs {
  const Sequence* sequence;
  Index h;
  Range queries, keys;
};

/// Whether some query does not see some key, as far as a quick check can tell.
template <class T>
bool has_masked_pairs(const AttentionProblem<T>& problem, const Pairs& pairs) {
  return problem.mask || problem.bias || !pairs.sequence->fully_visible(pairs.queries, pairs.keys);
}

/// y(i, j, c) += w(i, j) x(i, j, c) for all visible pairs (i, j) and all columns c. i and j count from the
/// first query and the first key of the pairs. The sum is over the keys if y depends on i alone, and over the
/// queries if it depends on j alone.
template <class T, class Y, class W, class X>
void add_visible(const AttentionProblem<T>& problem, const Pairs& pairs, Index columns, Y&& y, W&& w, X&& x) {
  for (Index i = 0; i < pairs.queries.size(); ++i) {
    if (problem.fully_masked(*pairs.sequence, pairs.h, pairs.queries.begin + i)) continue;
    for (Index j = 0; j < pairs.keys.size(); ++j) {
      if (!problem.visible(*pairs.sequence, pairs.h, pairs.queries.begin + i, pairs.keys.begin + j)) continue;
      for (Index c = 0; c < columns; ++c) y(i, j, c) += w(i, j) * x(i, j, c);
    }
  }
}

}  // namespace tilegrad::kernels
