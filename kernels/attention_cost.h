#pragma once

#include <string_view>

#include "kernels/attention.h"

/// How much attention computes, by its formulas.
namespace tilegrad::kernels {

enum class Pass { forward, backward };
std::string_view name(Pass pass);

/// The sizes of one call, and the pairs of query and key in one head that its masks leave.
struct AttentionSizes {
  Index batch = 1, heads = 1, kv_heads = 1, tq = 0, tk = 0, dim = 0;
  Index pairs = 0;

  double all_pairs() const;  ///< B · Hq · pairs
};

/// Pairs of query and key that causal and window leave in one head, counted one row after the other.
Index visible_pairs(Index tq, Index tk, const AttentionOptions& options);

/// Floating-point operations of the matrix products: forward 4 · B · Hq · pairs · D (two products), backward
/// 2.5 times that (five products).
double attention_flops(const AttentionSizes& sizes, Pass pass);

}  // namespace tilegrad::kernels
