#pragma once

#include <cassert>
#include <cmath>
#include <limits>

#include "tilegrad/kernels/attention/attention.h"
#include "tilegrad/kernels/attention/schedule.h"

/// What naive and flash attention share: one call, and which pairs its masks leave visible. Private to kernels/.
namespace tilegrad::kernels {

/// The sizes and settings of one call.
template <class T>
struct AttentionProblem : ProblemShape {
  using Accum = Compute<T>;

  AttentionInputs<T> in;
  AttentionOptions options;
  double scale, softcap;  // softcap 0: none

  AttentionProblem(const AttentionInputs<T>& in_, const AttentionOptions& options_)
      : ProblemShape{.batch = in_.q.batch,
                     .tq = in_.q.time,
                     .tk = in_.k.time,
                     .heads = in_.q.heads,
                     .kv_heads = in_.k.heads,
                     .dim = in_.q.dim,
                     .dim_v = in_.v.dim,
                     .tiles = options_.tiles,
                     .packed = !in_.cu_q.empty()},
        in(in_),
        options(options_),
        scale(options.scale.value_or(1 / std::sqrt(static_cast<double>(in.q.dim)))),
        softcap(options.softcap.value_or(0)) {
    assert(in.k.dim == dim && in.v.time == tk && in.v.heads == kv_heads);
    assert(in.k.batch == batch && in.v.batch == batch && heads % kv_heads == 0);
    assert(in.cu_q.size() == in.cu_k.size() && (in.cu_q.empty() || (batch == 1 && in.k_lengths.empty())));
    sequences = find_sequences(*this, options, in.k_lengths, in.cu_q, in.cu_k);
  }

  /// The logit of head h's sink; −inf if there are none.
  Accum sink(Index h) const { return in.sinks.empty() ? -kInfinity : in.sinks[h]; }
  /// Where row (b, h, i) stands in lse (B, Hq, Tq).
  Index row(Index b, Index h, Index i) const { return (b * heads + h) * tq + i; }
  /// Whether scores are scaled products (so the largest product has the largest score), masked by ranges
  /// alone, and no probability is dropped: the kernels then skip all steps between the products.
  bool no_score_mods() const {
    return scale > 0 && softcap == 0 && !in.bias && !in.mask && in.alibi.empty() && options.dropout == 0;
  }
  /// Whether each key and value is read for a few rows only, as when a model generates. Then it takes longer
  /// to read K and V than to multiply.
  bool is_decode() const {
    constexpr Index kFewRows = 8;
    return longest_queries() * group_size() <= kFewRows;
  }
  /// Whether query i sees key j of its sequence.
  bool visible(const Sequence& s, Index h, Index i, Index j) const {
    const Range keys = s.keys_of(i);
    return keys.begin <= j && j < keys.end && (!in.mask || in.mask.row(s.b, h, i)[j] != 0);
  }
  /// Whether query i sees no key of its sequence; a bias of −inf hides a key as the mask does. (Scores that
  /// are all −inf for another reason come from an Inf in q or k and have no softmax.)
  bool fully_masked(const Sequence& s, Index h, Index i) const {
    const Range keys = s.keys_of(i);
    for (Index j = keys.begin; j < keys.end; ++j) {
      const bool hidden_by_bias = in.bias && in.bias.row(s.b, h, i)[j] == -kInfinity;
      if (!hidden_by_bias && visible(s, h, i, j)) return false;
    }
    return true;
  }

  /// The denominator l = Σ_j exp(s_ij − m) of query i, as the recurrence has found it.
  struct Denominator {
    Accum sum;
    bool fully_masked;  // the query saw no key: its output is 0, whatever its sums are
  };
  Denominator denominator(Accum sum, const Sequence& s, Index h, Index i) const {
    if (sum > 0 && std::isfinite(sum)) return {sum, false};
    // Scores that are all −inf have no softmax; a sink that is Inf or NaN may be all that there is.
    if (!fully_masked(s, h, i)) return {sum == 0 ? std::numeric_limits<Accum>::quiet_NaN() : sum, false};
    return {sum == 0 ? Accum{0} : Accum{1}, true};
  }

 private:
  static constexpr Accum kInfinity = std::numeric_limits<Accum>::infinity();
};

}  // namespace tilegrad::kernels
