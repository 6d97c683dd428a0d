#pragma once

#include <optional>
#include <span>

#include "base/random.h"
#include "kernels/heads.h"
#include "kernels/mat.h"

/// Scaled dot-product attention, for float and double.
///
///   q (B, Tq, Hq, D)   k (B, Tk, Hkv, D)   v (B, Tk, Hkv, Dv)   out (B, Tq, Hq, Dv)   lse (B, Hq, Tq)
///
/// Hq is a multiple of Hkv, and query head h reads key/value head h / (Hq / Hkv): MHA has Hkv = Hq, MQA
/// Hkv = 1, GQA lies between. K and V are never repeated in memory.
///
///   s_ij = scale ⟨q_i, k_j⟩, −inf where masked       lse_i = log Σ_j exp(s_ij)
///   p_ij = exp(s_ij − lse_i)                          out_i = Σ_j dropout(p_ij) v_j
///
/// A row that may see no key has out 0, lse −inf and zero gradients.
namespace tilegrad::kernels {

/// How the diagonal of the causal mask lies when Tq ≠ Tk. Query i sees keys j ≤ i + offset:
/// bottom_right has offset = Tk − Tq (the last query sees the last key), top_left has offset = 0.
enum class Align { bottom_right, top_left };

/// Rows of queries and keys in one tile; 0 lets the kernel choose. The result depends on it only by rounding.
struct TileSizes {
  Index queries = 0;
  Index keys = 0;
};

struct AttentionOptions {
  bool causal = false;
  Align align = Align::bottom_right;
  std::optional<double> scale = {};  ///< 1/√D unless given
  double dropout = 0;                ///< probability of dropping p_ij, 0 ≤ dropout < 1
  RandomKey dropout_key = {};        ///< decides what is dropped, the same in forward and backward
  TileSizes tiles = {};
};

/// The tensors that both passes read.
template <class T>
struct AttentionInputs {
  Heads<const T> q, k, v;
};

/// Where the gradients go. A gradient with null data is not wanted.
template <class T>
struct AttentionGrads {
  Heads<T> dq;
  Write write_q = Write::overwrite;
  Heads<T> dk;
  Write write_k = Write::overwrite;
  Heads<T> dv;
  Write write_v = Write::overwrite;
};

/// Keeps all probabilities p (B, Hq, Tq, Tk), before dropout: memory grows with Tq · Tk.
template <class T>
void naive_attention(Heads<T> out, std::span<T> lse, std::span<T> p, const AttentionInputs<T>& in,
                     const AttentionOptions& options);
template <class T>
void naive_attention_backward(const AttentionGrads<T>& grads, std::type_identity_t<Heads<const T>> dout,
                              const AttentionInputs<T>& in, std::span<const std::type_identity_t<T>> p,
                              const AttentionOptions& options);

/// Never forms p: works tile by tile and keeps only out and lse. Memory grows with Tq + Tk.
template <class T>
void flash_attention(Heads<T> out, std::span<T> lse, const AttentionInputs<T>& in,
                     const AttentionOptions& options);
template <class T>
void flash_attention_backward(const AttentionGrads<T>& grads, std::type_identity_t<Heads<const T>> dout,
                              const AttentionInputs<T>& in, std::type_identity_t<Heads<const T>> out,
                              std::span<const std::type_identity_t<T>> lse, const AttentionOptions& options);

}  // namespace tilegrad::kernels
