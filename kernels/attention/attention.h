#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "tilegrad/base/random.h"
#include "tilegrad/kernels/narrow.h"
#include "tilegrad/kernels/views.h"

/// Scaled dot-product attention, for float, double, bf16 and f16. bf16 and f16 are how q, k, v, out and their gradients
/// are stored; scores, lse, bias, sinks and all sums are float, and each result is rounded once. A finite result that is
/// too large for the type is stored as Inf, and overflow_count() counts it.
///
///   q (B, Tq, Hq, D)   k (B, Tk, Hkv, D)   v (B, Tk, Hkv, Dv)   out (B, Tq, Hq, Dv)   lse (B, Hq, Tq)
///
/// Hq is a multiple of Hkv, and query head h reads key/value head h / (Hq / Hkv): MHA has Hkv = Hq, MQA
/// Hkv = 1, GQA lies between. K and V are never repeated in memory.
///
///   s_ij = scale ⟨q_i, k_j⟩
///   s_ij = softcap · tanh(s_ij / softcap)                       if there is a softcap
///   s_ij = s_ij + bias_ij − slope_h |i + offset − j|            if there are a bias, ALiBi slopes
///   s_ij = −inf                                                 where masked: causal, window, lengths, mask
///   lse_i = log (exp(sink_h) + Σ_j exp(s_ij))                   exp(sink_h) only if there are sinks
///   p_ij = exp(s_ij − lse_i)          out_i = Σ_j dropout(p_ij) v_j
///
/// A row that may see no key, because masks hide all of them or its bias is −inf for those that they leave, has
/// out 0, lse −inf (or its sink, which is then the whole denominator) and zero gradients. NaN and Inf in the
/// inputs show in the outputs that depend on them and nowhere else.
///
/// Scores may have any finite size: a row that sees nothing but keys with a bias of the lowest number weighs
/// them equally. A score beyond the largest number is ±inf: +inf makes its row NaN, −inf has p 0, and a row
/// of nothing but −inf is NaN. Whether a product overflows before its last term is added depends on the order
/// of the terms, hence on the kernel.
namespace tilegrad::kernels {

/// How the diagonal lies when Tq ≠ Tk: query i stands at key position i + offset. bottom_right has
/// offset = Tk − Tq (the last query sees the last key), top_left has offset = 0. Tq and Tk are the lengths of
/// the row's own sequence, if keys have lengths or sequences are packed.
enum class Align { bottom_right, top_left };

/// Rows of queries and keys in one tile; 0 lets the kernel choose. The result depends on it only by rounding.
struct TileSizes {
  Index queries = 0;
  Index keys = 0;
};

/// Query i sees the keys j with i + offset − left ≤ j ≤ i + offset + right; a side not given has no bound.
struct Window {
  std::optional<Index> left = {};   ///< ≥ 0
  std::optional<Index> right = {};  ///< ≥ 0
};

/// What the op checks: 0 ≤ dropout < 1; scale finite, softcap > 0 and its inverse finite, if
/// given, in the computing type; window sides ≥ 0; causal together with window.right > 0 is a contradiction.
struct AttentionOptions {
  bool causal = false;  ///< the same as window.right = 0
  Align align = Align::bottom_right;
  Window window = {};
  std::optional<double> scale = {};    ///< 1/√D unless given, and 1 if D is 0
  std::optional<double> softcap = {};  ///< bounds the scores smoothly (Gemma 2)
  double dropout = 0;                  ///< probability of dropping p_ij, 0 ≤ dropout < 1
  RandomKey dropout_key = {};          ///< decides what is dropped, the same in forward and backward
  TileSizes tiles = {};
};

/// The tensors that both passes read. All but q, k and v are optional.
///
/// Packed sequences have B = 1: sequence n has the queries [cu_q[n], cu_q[n + 1]) and the keys [cu_k[n],
/// cu_k[n + 1]), and sees nothing of the others. Both begin with 0, do not fall, and end with Tq and Tk.
/// They exclude k_lengths. bias and mask are then still (1, Hq or 1, Tq, Tk).
template <class T>
struct AttentionInputs {
  HeadsView<const T> q, k, v;
  ScoreView<const Compute<T>> bias = {};
  ScoreView<const std::uint8_t> mask = {};             ///< not 0: may be seen
  std::span<const Compute<T>> alibi = {};              ///< (Hq) slopes
  std::span<const Compute<T>> sinks = {};              ///< (Hq) one more logit in the denominator
  std::span<const std::int32_t> k_lengths = {};        ///< (B) keys from there on are padding; in [0, Tk]
  std::span<const std::int32_t> cu_q = {}, cu_k = {};  ///< (N + 1)

  /// The same call on tensors that are stored in another type, U, with the same computing type.
  template <class U>
  AttentionInputs<U> with(HeadsView<const U> q_, HeadsView<const U> k_, HeadsView<const U> v_) const {
    return {q_, k_, v_, bias, mask, alibi, sinks, k_lengths, cu_q, cu_k};
  }
};

/// Where the gradients go, and how they are written. dbias has the bias's own shape: it is summed over the
/// axes that were broadcast. dsinks is (Hq).
template <class T>
struct AttentionGrads {
  Grad<HeadsView<T>> dq = {}, dk = {}, dv = {};
  Grad<ScoreView<Compute<T>>> dbias = {};
  Grad<std::span<Compute<T>>> dsinks = {};
};

/// Keeps all probabilities p (B, Hq, Tq, Tk), before dropout: memory grows with Tq · Tk.
template <class T>
void naive_attention(HeadsView<T> out, std::span<Compute<T>> lse, std::span<Compute<T>> p,
                     const AttentionInputs<T>& in, const AttentionOptions& options);
/// dlse (B, Hq, Tq) is the gradient that arrives through lse; empty if there is none. lse is read only for
/// dsinks.
template <class T>
void naive_attention_backward(const AttentionGrads<T>& grads, HeadsView<const T> dout,
                              const AttentionInputs<T>& in, std::span<const Compute<T>> p,
                              const AttentionOptions& options, std::span<const Compute<T>> lse = {},
                              std::span<const Compute<T>> dlse = {});

/// Never forms p: works tile by tile and keeps only out and lse. Memory grows with Tq + Tk.
template <class T>
void flash_attention(HeadsView<T> out, std::span<Compute<T>> lse, const AttentionInputs<T>& in,
                     const AttentionOptions& options);
template <class T>
void flash_attention_backward(const AttentionGrads<T>& grads, HeadsView<const T> dout,
                              const AttentionInputs<T>& in, HeadsView<const T> out,
                              std::span<const Compute<T>> lse, const AttentionOptions& options,
                              std::span<const Compute<T>> dlse = {});

}  // namespace tilegrad::kernels
