#include "tilegrad/autograd/ops/attention_checks.h"

#include "tilegrad/autograd/ops/checks.h"

namespace tilegrad {

namespace {

constexpr std::string_view op = "attention";

void check_shapes(const Var& q, const Var& k, const Var& v) {
  check(q.rank() == 4 && k.rank() == 4 && v.rank() == 4, "{}: q, k and v are (B, T, H, D), not {}, {} and {}",
        op, q.shape(), k.shape(), v.shape());
  check_same_dtype(op, q, k);
  check_same_dtype(op, q, v);
  check(q.dim(0) == k.dim(0) && k.shape().with(3, 0) == v.shape().with(3, 0),
        "{}: batch, length or heads differ: q is {}, k is {}, v is {}", op, q.shape(), k.shape(), v.shape());
  check(q.dim(3) == k.dim(3), "{}: head sizes differ: q is {}, k is {}", op, q.shape(), k.shape());
  check(k.dim(2) > 0 && q.dim(2) % k.dim(2) == 0, "{}: {} key/value heads do not divide {} query heads", op,
        k.dim(2), q.dim(2));
}

void check_options(const AttentionOptions& o) {
  check(o.dropout >= 0 && o.dropout < 1, "{}: dropout is {}, not in [0, 1)", op, o.dropout);
  check(o.softcap.value_or(1) > 0, "{}: softcap is {}, must be positive", op, o.softcap.value_or(1));
  check(o.window.left.value_or(0) >= 0 && o.window.right.value_or(0) >= 0,
        "{}: the window reaches {} to the left and {} to the right, neither may be negative", op,
        o.window.left.value_or(0), o.window.right.value_or(0));
  check(!o.causal || o.window.right.value_or(0) == 0,
        "{}: causal sees nothing to the right, the window reaches {}", op, o.window.right.value_or(0));
  check(o.tiles.queries >= 0 && o.tiles.keys >= 0, "{}: tiles of {} queries and {} keys", op, o.tiles.queries,
        o.tiles.keys);
}

// A bias or mask: (B or 1, Hq or 1, Tq, Tk).
void check_pairs(std::string_view what, const Tensor& t, const Var& q, const Var& k, Dtype dtype) {
  if (!t.defined()) return;
  const bool fits = t.rank() == 4 && (t.dim(0) == 1 || t.dim(0) == q.dim(0)) &&
                    (t.dim(1) == 1 || t.dim(1) == q.dim(2)) && t.dim(2) == q.dim(1) && t.dim(3) == k.dim(1);
  check(fits, "{}: {} is {}, not (1 or {}, 1 or {}, {}, {})", op, what, t.shape(), q.dim(0), q.dim(2),
        q.dim(1), k.dim(1));
  check(t.dtype() == dtype, "{}: {} is {}, not {}", op, what, t.dtype(), dtype);
}

void check_vector(std::string_view what, const Tensor& t, Index size, Dtype dtype) {
  if (!t.defined()) return;
  check(t.shape() == Shape{size} && t.dtype() == dtype, "{}: {} is {} {}, not {} ({})", op, what, t.dtype(),
        t.shape(), dtype, size);
}

void check_lengths(const Tensor& lengths, Index batch, Index tk) {
  check_vector("k_lengths", lengths, batch, Dtype::i32);
  if (!lengths.defined()) return;
  for (const std::int32_t n : lengths.view<std::int32_t>()) {
    check(n >= 0 && n <= tk, "{}: a key length is {}, not in [0, {}]", op, n, tk);
  }
}

// Offsets of packed sequences: from 0 to the whole length, never falling.
void check_offsets(std::string_view what, const Tensor& cu, Index total) {
  check(cu.rank() == 1 && cu.dtype() == Dtype::i32 && cu.size() >= 2,
        "{}: {} is {} {}, not i32 (sequences + 1)", op, what, cu.dtype(), cu.shape());
  const auto at = cu.view<std::int32_t>();
  check(at.front() == 0 && at.back() == total, "{}: {} runs from {} to {}, not from 0 to {}", op, what,
        at.front(), at.back(), total);
  for (std::size_t i = 1; i < at.size(); ++i) {
    check(at[i - 1] <= at[i], "{}: {} falls from {} to {}", op, what, at[i - 1], at[i]);
  }
}

void check_packing(const AttentionExtras& e, const Var& q, const Var& k) {
  if (!e.cu_q.defined() && !e.cu_k.defined()) return;
  check(e.cu_q.defined() && e.cu_k.defined(), "{}: cu_q and cu_k go together, {} is missing", op,
        e.cu_q.defined() ? "cu_k" : "cu_q");
  check(q.dim(0) == 1, "{}: packed sequences have batch 1, not {}", op, q.dim(0));
  check(!e.k_lengths.defined(),
        "{}: packed sequences have lengths of their own, k_lengths would contradict them", op);
  check_offsets("cu_q", e.cu_q, q.dim(1));
  check_offsets("cu_k", e.cu_k, k.dim(1));
  check(e.cu_q.size() == e.cu_k.size(), "{}: cu_q has {} sequences, cu_k {}", op, e.cu_q.size() - 1,
        e.cu_k.size() - 1);
}

}  // namespace

void check_attention(const Var& q, const Var& k, const Var& v, const AttentionOptions& options,
                     const AttentionExtras& extras) {
  check_shapes(q, k, v);
  check_options(options);
  const Dtype computed = compute_dtype(q.dtype());
  check_pairs("bias", extras.bias.value(), q, k, computed);
  check_pairs("mask", extras.mask, q, k, Dtype::u8);
  check_vector("sinks", extras.sinks.value(), q.dim(2), computed);
  check_vector("alibi", extras.alibi, q.dim(2), computed);
  check_lengths(extras.k_lengths, q.dim(0), k.dim(1));
  check_packing(extras, q, k);
}

}  // namespace tilegrad
