#include "tilegrad/autograd/ops/attention_checks.h"

#include <cmath>
#include <limits>

#include "tilegrad/base/error.h"

namespace tilegrad {

namespace {

using kernels::AttentionOptions;
using Infos = std::array<OperandInfo, kOperands>;

void check_shapes(const Infos& in) {
  const Shape &q = in[kQ].shape, &k = in[kK].shape, &v = in[kV].shape;
  check(q.rank() == 4 && k.rank() == 4 && v.rank() == 4,
        "attention: q, k and v are (B, T, H, D), not {}, {} and {}", q, k, v);
  for (const AttentionOperand i : {kK, kV}) {
    check(in[i].dtype == in[kQ].dtype, "attention: dtypes differ: {} and {}", in[kQ].dtype, in[i].dtype);
  }
  check(q[0] == k[0] && k.with(3, 0) == v.with(3, 0),
        "attention: batch, length or heads differ: q is {}, k is {}, v is {}", q, k, v);
  check(q[3] == k[3], "attention: head sizes differ: q is {}, k is {}", q, k);
  check(k[2] > 0 && q[2] % k[2] == 0, "attention: {} key/value heads do not divide {} query heads", k[2],
        q[2]);
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
void check_scores(AttentionOperand i, const Infos& in, Dtype dtype) {
  if (!in[i].given) return;
  const Shape &t = in[i].shape, &q = in[kQ].shape, &k = in[kK].shape;
  const bool fits = t.rank() == 4 && (t[0] == 1 || t[0] == q[0]) && (t[1] == 1 || t[1] == q[2]) &&
                    t[2] == q[1] && t[3] == k[1];
  check(fits, "attention: {} is {}, not (1 or {}, 1 or {}, {}, {})", kOperandNames[i], t, q[0], q[2], q[1],
        k[1]);
  check(in[i].dtype == dtype, "attention: {} is {}, not {}", kOperandNames[i], in[i].dtype, dtype);
}

void check_vector(AttentionOperand i, const Infos& in, Index size, Dtype dtype) {
  const OperandInfo& t = in[i];
  check(!t.given || (t.shape == Shape{size} && t.dtype == dtype), "attention: {} is {} {}, not {} ({})",
        kOperandNames[i], t.dtype, t.shape, dtype, size);
}

void check_lengths(const Infos& in) {
  check_vector(kKLengths, in, in[kQ].shape[0], Dtype::i32);
  const Index tk = in[kK].shape[1];
  for (const std::int32_t n : in[kKLengths].integers) {
    check(n >= 0 && n <= tk, "attention: a key length is {}, not in [0, {}]", n, tk);
  }
}

// Offsets of packed sequences: from 0 to the whole length, never falling.
void check_offsets(AttentionOperand i, const OperandInfo& cu, Index total) {
  check(cu.shape.rank() == 1 && cu.dtype == Dtype::i32 && cu.shape.size() >= 2,
        "attention: {} is {} {}, not i32 (sequences + 1)", kOperandNames[i], cu.dtype, cu.shape);
  const auto at = cu.integers;
  check(at.front() == 0 && at.back() == total, "attention: {} runs from {} to {}, not from 0 to {}",
        kOperandNames[i], at.front(), at.back(), total);
  for (std::size_t n = 1; n < at.size(); ++n) {
    check(at[n - 1] <= at[n], "attention: {} falls from {} to {}", kOperandNames[i], at[n - 1], at[n]);
  }
}

void check_packing(const Infos& in) {
  const OperandInfo &cu_q = in[kCuQ], &cu_k = in[kCuK];
  if (!cu_q.given && !cu_k.given) return;
  check(cu_q.given && cu_k.given, "attention: cu_q and cu_k go together, {} is missing",
        cu_q.given ? "cu_k" : "cu_q");
  check(in[kQ].shape[0] == 1, "attention: packed sequences have batch 1, not {}", in[kQ].shape[0]);
  check(!in[kKLengths].given,
        "attention: packed sequences have lengths of their own, k_lengths would contradict them");
  check_offsets(kCuQ, cu_q, in[kQ].shape[1]);
  check_offsets(kCuK, cu_k, in[kK].shape[1]);
  check(cu_q.shape == cu_k.shape, "attention: cu_q has {} sequences, cu_k {}", cu_q.shape.size() - 1,
        cu_k.shape.size() - 1);
}

}  // namespace

void check_attention(const Infos& in, const AttentionOptions& options) {
  check_shapes(in);
  check_options(options);
  const Dtype computed = compute_dtype(in[kQ].dtype);
  if (computed == Dtype::f32) {
    check_numbers<float>(options, computed);
  } else {
    check_numbers<double>(options, computed);
  }
  const Index heads = in[kQ].shape[2];
  check_scores(kBias, in, computed);
  check_scores(kMask, in, Dtype::u8);
  check_vector(kSinks, in, heads, computed);
  check_vector(kAlibi, in, heads, computed);
  check_lengths(in);
  check_packing(in);
}

void check_blas_sizes(const Infos& in) {
  constexpr Index kMax = std::numeric_limits<std::int32_t>::max();
  const auto check_size = [&](std::string_view name, const Shape& shape, Index heads, Index size) {
    check(shape[1] <= kMax && (size == 0 || heads <= kMax / size),
          "attention: {} is {}, too large for naive attention: T and H · D may be at most {}; flash has no "
          "such limit",
          name, shape, kMax);
  };
  for (const AttentionOperand i : {kQ, kK, kV}) {
    check_size(kOperandNames[i], in[i].shape, in[i].shape[2], in[i].shape[3]);
  }
  check_size("out", in[kQ].shape.with(3, in[kV].shape[3]), in[kQ].shape[2], in[kV].shape[3]);
}

}  // namespace tilegrad
