#pragma once

#include <cstdint>
#include <span>

#include "tilegrad/autograd/var.h"
#include "tilegrad/base/random.h"
#include "tilegrad/kernels/attention/attention.h"

/// Every op of tilegrad: one line of maths, one of shapes. All work in f32 and f64 unless they say otherwise.
/// Shapes must match exactly and dtypes must be equal. Nothing is promoted, and nothing broadcasts by itself,
/// except a vector along the last axis (linear, add_bias, norms), and attention's bias and mask along batch
/// and heads; broadcast() repeats a row or a column where that is meant. A violation is an Error that names
/// the op and both values. A negative axis counts from the end.
///
/// operators.h has + − * / on top of these. Layers of nn/ use few of the simple ops: those are for users, and
/// for the tests, which compose attention from them.
namespace tilegrad {

// --- Arithmetic ---

/// a + b, a − b, a ⊙ b. Equal shapes.
Var add(const Var& a, const Var& b);
Var sub(const Var& a, const Var& b);
Var mul(const Var& a, const Var& b);
/// a / b, max(a, b), min(a, b) by element. Equal shapes. Where a = b, each of them gets half of the gradient
/// of maximum and minimum.
Var div(const Var& a, const Var& b);
Var maximum(const Var& a, const Var& b);
Var minimum(const Var& a, const Var& b);
/// s x, x + s, s / x.
Var scale(const Var& x, double s);
Var shift(const Var& x, double s);
Var quotient(double s, const Var& x);
/// a where the condition is not 0, b elsewhere. condition u8, a and b of equal shapes.
Var where(const Tensor& condition, const Var& a, const Var& b);
/// x + bias on every row. x (..., C), bias (C).
Var add_bias(const Var& x, const Var& bias);

/// Σ x and Σ x / size. Any shape -> scalar ().
Var sum(const Var& x);
Var mean(const Var& x);

// --- Functions of one number. Any shape. kernels/functions.h has the derivatives. ---

/// eˣ, ln x, tanh x, 1/(1 + e⁻ˣ), |x|, √x, xᵖ.
Var exp(const Var& x);
Var log(const Var& x);
Var tanh(const Var& x);
Var sigmoid(const Var& x);
Var abs(const Var& x);
Var sqrt(const Var& x);
Var pow(const Var& x, double p);
/// min(max(x, low), high), low ≤ high. No gradient where x lies outside.
Var clamp(const Var& x, double low, double high);

// --- Along one axis ---

/// Σ x, Σ x / n, max x over an axis, which is removed: x (..., n, ...) -> (..., ...). The gradient of max goes to
/// the first of several largest elements; NaN counts as largest.
Var sum(const Var& x, int axis);
Var mean(const Var& x, int axis);
Var max(const Var& x, int axis);
/// x repeated along a new axis of n entries: a row (C) at axis 0 -> (n, C), a column (N) at axis 1 -> (N, n).
Var broadcast(const Var& x, int axis, Index n);
/// At each position of the other axes, the entry that ids names. x (..., n, ...), ids i32 of x's
/// shape without the axis, values in [0, n) -> the shape of ids. Log-probabilities of targets, for example.
Var gather(const Var& x, const Tensor& ids, int axis = -1);

// --- Matrix products ---

/// a b over the last two axes. a (..., M, K), b (..., K, N) with equal leading axes -> (..., M, N).
/// With transpose_b, b is (..., N, K).
Var matmul(const Var& a, const Var& b, bool transpose_b = false);
/// x Wᵀ + bias. x (..., In), weight (Out, In), bias (Out) or none -> (..., Out).
Var linear(const Var& x, const Var& weight);
Var linear(const Var& x, const Var& weight, const Var& bias);

// --- Activations ---

/// max(x, 0); GELU in its tanh form; x σ(x). kernels/activation.h has the formulas.
Var relu(const Var& x);
Var gelu(const Var& x);
Var silu(const Var& x);
/// silu(gate) ⊙ up in one pass. Equal shapes.
Var swiglu(const Var& gate, const Var& up);
/// Softmax over the last axis. x (..., C).
Var softmax(const Var& x);
/// x with each element dropped with probability p and the others scaled by 1/(1 − p); the mask is drawn from
/// the key in forward and backward and never stored. 0 ≤ p < 1; p = 0 is x itself.
Var dropout(const Var& x, double p, RandomKey key);

// --- Normalisation ---

/// (x − mean)/√(var + eps) ⊙ weight + bias over the last axis. x (..., C), weight (C), bias (C).
Var layernorm(const Var& x, const Var& weight, const Var& bias, double eps = 1e-5);
/// x/√(mean(x²) + eps) ⊙ weight over the last axis. x (..., C), weight (C).
Var rmsnorm(const Var& x, const Var& weight, double eps = 1e-5);

// --- Tokens and positions ---

/// table[ids]. table (V, C), ids i32 (...) with values in [0, V) -> (..., C).
Var embedding(const Var& table, const Tensor& ids);
/// Rotary positions: position t of x is t + first_position. x (B, T, H, D), D even.
Var rope(const Var& x, Index first_position = 0, double base = 10000.0);

// --- Shapes ---

/// The same elements in another shape of equal size; no copy.
Var reshape(const Var& x, const Shape& shape);
/// Entries begin ≤ i < end along an axis (negative axes count from the end); a copy.
Var slice(const Var& x, int axis, Index begin, Index end);
/// Joins along an axis; the other axes are equal.
Var concat(std::span<const Var> xs, int axis);
/// Joins n values of one shape along a new axis: (...) -> (..., n, ...).
Var stack(std::span<const Var> xs, int axis);
/// Entry i of an axis, which is removed; a negative i counts from the end. A copy.
Var select(const Var& x, int axis, Index i);
/// Swaps the last two axes. x (..., M, N) -> (..., N, M); a copy.
Var transpose(const Var& x);
/// Swaps axes 1 and 2. x (A, B, C, D) -> (A, C, B, D); a copy.
Var swap_axes(const Var& x);
/// Converts between f32 and f64; backward converts back.
Var cast(const Var& x, Dtype dtype);

// --- Losses ---

/// The target of a position that does not count.
inline constexpr std::int32_t kIgnored = -1;
/// Mean of −log softmax(logits)[target] over the positions that count, without forming the softmax.
/// logits (..., V), targets i32 (...) with values in [0, V) or kIgnored -> scalar (). At least one must
/// count.
Var cross_entropy(const Var& logits, const Tensor& targets);
/// cross_entropy(linear(x, weight), targets), a block of logits at a time, so that (..., V) of them are never
/// alive. Where a tape records, it computes the gradients at once: call it without one if only the loss is
/// needed. x (..., In), weight (V, In), targets i32 (...) -> scalar ().
Var linear_cross_entropy(const Var& x, const Var& weight, const Tensor& targets);

// --- Attention ---

using kernels::Align;
using kernels::AttentionOptions;
using kernels::Window;

/// naive forms the whole score matrix and keeps its softmax P (B, Hq, Tq, Tk) for backward; flash works tile
/// by tile and keeps one number per row. They compute the same function.
enum class AttentionKernel { naive, flash };

/// What attention can take besides q, k and v; what is not given stays undefined.
/// kernels/attention/attention.h has the formulas.
struct AttentionExtras {
  Var bias = {};          ///< (B or 1, Hq or 1, Tq, Tk), added to the scores; differentiable
  Var sinks = {};         ///< (Hq), one more logit in the denominator of each row; differentiable
  Tensor mask = {};       ///< u8 (B or 1, Hq or 1, Tq, Tk), 0: the query may not see the key
  Tensor alibi = {};      ///< (Hq), slopes
  Tensor k_lengths = {};  ///< i32 (B), keys from there on are padding
  Tensor cu_q = {};       ///< i32 (N + 1), where packed sequences begin among the queries; B = 1
  Tensor cu_k = {};       ///< i32 (N + 1), and among the keys
};

struct AttentionResult {
  Var out;  ///< (B, Tq, Hq, Dv)
  Var lse;  ///< (B, Hq, Tq), the logarithm of each row's denominator
};

/// Scaled dot-product attention with every option; both results are differentiable.
/// q (B, Tq, Hq, D), k (B, Tk, Hkv, D), v (B, Tk, Hkv, Dv), Hkv divides Hq. The one op that takes bf16 as
/// well: q, k, v, out and their gradients are stored in it; lse, bias, sinks and ALiBi slopes are f32, like
/// all sums.
AttentionResult attention_with_lse(const Var& q, const Var& k, const Var& v, AttentionKernel kernel,
                                   const AttentionOptions& options = {}, const AttentionExtras& extras = {});
/// The same, if only out is needed.
Var attention(const Var& q, const Var& k, const Var& v, AttentionKernel kernel,
              const AttentionOptions& options = {}, const AttentionExtras& extras = {});

// --- Without a backward ---

/// Position of the largest element along an axis, the first if there are several; NaN counts as largest.
/// x (..., n, ...) -> i32 (..., ...). An Error if x is on a gradient path.
Tensor argmax(const Var& x, int axis = -1);

/// What a query weighs the keys with.
struct AttentionProbabilities {
  Tensor p;    ///< (B, Hq, Tq, Tk); rows sum to 1, less what a sink takes; 0 where a key is masked
  Tensor lse;  ///< (B, Hq, Tq); the sink of head h takes exp(sink_h − lse) of a row
};

/// The probabilities of attention before dropout, by the naive kernel: those that flash never forms as well.
/// To look at; an Error if q or k is on a gradient path.
/// q (B, Tq, Hq, D), k (B, Tk, Hkv, D), Hkv divides Hq.
AttentionProbabilities attention_probabilities(const Var& q, const Var& k,
                                               const AttentionOptions& options = {},
                                               const AttentionExtras& extras = {});

}  // namespace tilegrad
