#pragma once

#include <string_view>

#include "tilegrad/autograd/ops.h"

/// How much attention computes and moves, by its formulas.
namespace tilegrad::train {

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

/// Bytes that move between memory and cache by the model of T. Dao et al., "FlashAttention" (NeurIPS 2022),
/// section 3.2. Every tensor is read or written once, as it is stored; scores, tiles in the cache and sums
/// are of the type that is computed in, which differs for bf16:
///   forward  q k v out                 tensors = B (2 Hq Tq + 2 Hkv Tk) D
///   backward q k v out dout dq dk dv   tensors = B (4 Hq Tq + 4 Hkv Tk) D
/// naive, Θ(N d + N²): the score matrix besides, B Hq pairs elements, moves
///   forward  4 times (S written; read and overwritten by the softmax; P read by P V)
///   backward 7 times (P read for dV; dP written; P and dP read, dS written; dS read for dQ and for dK)
/// flash, Θ(N² d² / M) with M elements in the L2 cache: while one block of M / D rows stays in the cache, the
/// rows of the other side pass by, B Hq pairs D / M of them
///   forward  2 D elements each (k, v pass by a block of queries)
///   backward 4 D elements each (q, dout and dq, read and written, pass by a block of keys)
double moved_bytes(const AttentionSizes& sizes, AttentionKernel kernel, Pass pass, Dtype dtype,
                   Index cache_bytes);

}  // namespace tilegrad::train
