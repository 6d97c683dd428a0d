#pragma once

#include <string>

#include "tilegrad/autograd/dtype.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/train/measure/phase.h"

/// One attention problem, and how much it computes and moves, by formula.
namespace tilegrad::train {

/// q (batch, tq, heads, head_size), k and v (batch, tk, kv_heads, head_size).
struct AttentionProblem {
  Index batch = 1, heads = 1, kv_heads = 1, tq = 0, tk = 0, head_size = 0;
  Dtype dtype = Dtype::f32;
  AttentionOptions options = {};
};

/// "q (1, 40, 2, 8), k and v (1, 40, 2, 8), f32, causal".
std::string describe(const AttentionProblem& problem);

/// Pairs of query and key that the causal mask and the window leave in one head, counted row by row.
Index visible_pairs(Index tq, Index tk, const AttentionOptions& options);

/// Floating-point operations of the matrix products: forward 4 · B · Hq · pairs · D (two products), backward
/// 2.5 times that (five products).
double attention_flops(const AttentionProblem& problem, Phase phase);

/// Bytes that move between memory and cache by the model of T. Dao et al., "FlashAttention" (NeurIPS 2022),
/// section 3.2. Every tensor is read or written once, as it is stored; scores, tiles in the cache and sums
/// are of the compute type, which differs from the stored type for bf16:
///   forward  q k v out                 tensors = B (2 Hq Tq + 2 Hkv Tk) D
///   backward q k v out dout dq dk dv   tensors = B (4 Hq Tq + 4 Hkv Tk) D
/// naive, Θ(N d + N²): in addition the score matrix, B Hq pairs elements, moves
///   forward  4 times (S written; read and overwritten by the softmax; P read by P V)
///   backward 7 times (P read for dV; dP written; P and dP read, dS written; dS read for dQ and for dK)
/// flash, Θ(N² d² / M) with M elements in the L2 cache: while one block of M / D rows stays in the cache, the
/// rows of the other side stream through it, B Hq pairs D / M of them
///   forward  2 D elements each (k and v stream past a block of queries)
///   backward 4 D elements each (q, dout and dq, read and written, stream past a block of keys)
double moved_bytes(const AttentionProblem& problem, AttentionKernel kernel, Phase phase, Index cache_bytes);

}  // namespace tilegrad::train
