#include <cmath>
#include <cstdint>
#include <limits>

#include "tilegrad/autograd/ops/attention.h"

namespace tilegrad::attention_op {

namespace {

void check_shapes(const Var& q, const Var& k, const Var& v) {
  check(q.rank() == 4 && k.rank() == 4 && v.rank() == 4,
        "attention: q, k and v are (B, T, H, D), not {}, {} and {}", q.shape(), k.shape(), v.shape());
  for (const Var& x : {k, v}) {
    check(x.dtype() == q.dtype(), "attention: dtypes differ: {} and {}", q.dtype(), x.dtype());
  }
  check(q.dim(0) == k.dim(0) && k.shape().with(3, 0) == v.shape().with(3, 0),
        "attention: batch, length or heads differ: q is {}, k is {}, v is {}", q.shape(), k.shape(),
        v.shape());
  check(q.dim(3) == k.dim(3), "attention: head sizes differ: q is {}, k is {}", q.shape(), k.shape());
  check(k.dim(2) > 0 && q.dim(2) % k.dim(2) == 0,
        "attention: {} key/value heads do not divide {} query heads", k.dim(2), q.dim(2));
}

void check_options(const AttentionOptions& o) {
  check(o.dropout >= 0 && o.dropout < 1, "attention: dropout is {}, not in [0, 1)", o.dropout);
  check(o.softcap.value_or(1) > 0, "attention: softcap is {}, must be positive", o.softcap.value_or(1));
  const Index left = o.window.left.value_or(0), right = o.window.right.value_or(0);
  check(left >= 0 && right >= 0,
        "attention: the window reaches {} to the left and {} to the right, neither may be negative", left,
        right);
  check(!o.causal || right == 0, "attention: causal sees nothing to the right, the window reaches {}", right);
  check(o.tiles.queries >= 0 && o.tiles.keys >= 0, "attention: tiles of {} queries and {} keys",
        o.tiles.queries, o.tiles.keys);
}

// Scale and softcap as the kernels use them: in the computing type, and the softcap's inverse as well.
template <class T>
void check_numbers(const AttentionOptions& o, Dtype dtype) {
  const double scale = o.scale.value_or(1), softcap = o.softcap.value_or(1);
  constexpr auto kLargest = static_cast<double>(std::numeric_limits<T>::max()),
                 kSmallestCap = static_cast<double>(std::numeric_limits<T>::min()),
                 kLargestCap = 1 / kSmallestCap;
  check(std::abs(scale) <= kLargest, "attention: scale is {}, must be finite in {}", scale, dtype);
  check(kSmallestCap <= softcap && softcap <= kLargestCap,
        "attention: softcap is {}, not in [{:.2g}, {:.2g}], the range of {}", softcap, kSmallestCap,
        kLargestCap, dtype);
}

// A bias or mask: (B or 1, Hq or 1, Tq, Tk).
void check_scores(Operand i, const Inputs& in, Dtype dtype) {
  const Tensor& t = in[i].value();
  if (!t.defined()) return;
  const Var &q = in[kQ], &k = in[kK];
  const bool fits = t.rank() == 4 && (t.dim(0) == 1 || t.dim(0) == q.dim(0)) &&
                    (t.dim(1) == 1 || t.dim(1) == q.dim(2)) && t.dim(2) == q.dim(1) && t.dim(3) == k.dim(1);
  check(fits, "attention: {} is {}, not (1 or {}, 1 or {}, {}, {})", kNames[i], t.shape(), q.dim(0), q.dim(2),
        q.dim(1), k.dim(1));
  check(t.dtype() == dtype, "attention: {} is {}, not {}", kNames[i], t.dtype(), dtype);
}

void check_vector(Operand i, const Inputs& in, Index size, Dtype dtype) {
  const Tensor& t = in[i].value();
  if (!t.defined()) return;
  check(t.shape() == Shape{size} && t.dtype() == dtype, "attention: {} is {} {}, not {} ({})", kNames[i],
        t.dtype(), t.shape(), dtype, size);
}

void check_lengths(const Inputs& in) {
  check_vector(kKLengths, in, in[kQ].dim(0), Dtype::i32);
  if (!in[kKLengths].value().defined()) return;
  const Index tk = in[kK].dim(1);
  for (const std::int32_t n : in[kKLengths].value().view<std::int32_t>()) {
    check(n >= 0 && n <= tk, "attention: a key length is {}, not in [0, {}]", n, tk);
  }
}

// Offsets of packed sequences: from 0 to the whole length, never falling.
void check_offsets(Operand i, const Tensor& cu, Index total) {
  check(cu.rank() == 1 && cu.dtype() == Dtype::i32 && cu.size() >= 2,
        "attention: {} is {} {}, not i32 (sequences + 1)", kNames[i], cu.dtype(), cu.shape());
  const auto at = cu.view<std::int32_t>();
  check(at.front() == 0 && at.back() == total, "attention: {} runs from {} to {}, not from 0 to {}",
        kNames[i], at.front(), at.back(), total);
  for (std::size_t n = 1; n < at.size(); ++n) {
    check(at[n - 1] <= at[n], "attention: {} falls from {} to {}", kNames[i], at[n - 1], at[n]);
  }
}

void check_packing(const Inputs& in) {
  const Tensor &cu_q = in[kCuQ].value(), &cu_k = in[kCuK].value();
  if (!cu_q.defined() && !cu_k.defined()) return;
  check(cu_q.defined() && cu_k.defined(), "attention: cu_q and cu_k go together, {} is missing",
        cu_q.defined() ? "cu_k" : "cu_q");
  check(in[kQ].dim(0) == 1, "attention: packed sequences have batch 1, not {}", in[kQ].dim(0));
  check(!in[kKLengths].value().defined(),
        "attention: packed sequences have lengths of their own, k_lengths would contradict them");
  check_offsets(kCuQ, cu_q, in[kQ].dim(1));
  check_offsets(kCuK, cu_k, in[kK].dim(1));
  check(cu_q.size() == cu_k.size(), "attention: cu_q has {} sequences, cu_k {}", cu_q.size() - 1,
        cu_k.size() - 1);
}

}  // namespace

void check_inputs(const Inputs& in, const AttentionOptions& options) {
  check_shapes(in[kQ], in[kK], in[kV]);
  const Dtype computed = compute_dtype(in[kQ].dtype());
  check_options(options);
  if (computed == Dtype::f32) {
    check_numbers<float>(options, computed);
  } else {
    check_numbers<double>(options, computed);
  }
  const Index heads = in[kQ].dim(2);
  check_scores(kBias, in, computed);
  check_scores(kMask, in, Dtype::u8);
  check_vector(kSinks, in, heads, computed);
  check_vector(kAlibi, in, heads, computed);
  check_lengths(in);
  check_packing(in);
}

void check_blas_sizes(const Inputs& in) {
  constexpr Index kMax = std::numeric_limits<std::int32_t>::max();
  for (const Operand i : {kQ, kK, kV}) {
    const Var& x = in[i];
    const bool fits = x.dim(1) <= kMax && (x.dim(3) == 0 || x.dim(2) <= kMax / x.dim(3));
    check(fits,
          "attention: {} is {}, too large for naive attention: T and H · D may be at most {}; flash has no "
          "such limit",
          kNames[i], x.shape(), kMax);
  }
  const Index heads = in[kQ].dim(2), dim_v = in[kV].dim(3);
  check(dim_v == 0 || heads <= kMax / dim_v,
        "attention: {} heads of size {} are too large for naive attention: H · D may be at most {}; flash "
        "has no such "
        "limit",
        heads, dim_v, kMax);
}

}  // namespace tilegrad::attention_op
