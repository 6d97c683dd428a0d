#pragma once

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "tilegrad/kernels/attention/attention.h"
#include "tilegrad/kernels/attention/schedule.h"

/// What naive and flash attention share: one call, and which pairs its masks leave visible. Private to
/// kernels/.
namespace tilegrad::kernels {

/// Scores beyond this are large. Rounding one, in units of log 2 as the kernels take powers, or an LSE of its
/// size, is a relative error of more than 1e-5 in probabilities; at 1e9 an LSE has no room for the logarithm
/// of a sum at all. So the kernels subtract the maximum from large scores before they do anything else with
/// them.
inline constexpr double kLargeScore = 256;

template <class T>
bool is_large_score(T x) {
  return std::isfinite(x) && std::abs(x) > static_cast<T>(kLargeScore);
}

/// The sizes and settings of one call, computed in T, and the tensors that modify its scores.
template <class T>
struct AttentionProblem : ProblemShape {
  ScoreView<const T> bias;
  ScoreView<const std::uint8_t> mask;
  std::span<const T> alibi, sinks;
  std::span<const std::int32_t> k_lengths;
  AttentionOptions options;
  double scale, softcap;  // softcap 0: none

  template <class Stored>
  AttentionProblem(const AttentionInputs<Stored>& in, const AttentionOptions& options_)
      : ProblemShape{.batch = in.q.batch,
                     .tq = in.q.time,
                     .tk = in.k.time,
                     .heads = in.q.heads,
                     .kv_heads = in.k.heads,
                     .dim = in.q.dim,
                     .dim_v = in.v.dim,
                     .tiles = options_.tiles,
                     .packed = !in.cu_q.empty()},
        bias(in.bias),
        mask(in.mask),
        alibi(in.alibi),
        sinks(in.sinks),
        k_lengths(in.k_lengths),
        options(options_),
        scale(options_.scale.value_or(in.q.dim == 0 ? 1 : 1 / std::sqrt(static_cast<double>(in.q.dim)))),
        softcap(options_.softcap.value_or(0)) {
    assert(in.k.dim == dim && in.v.time == tk && in.v.heads == kv_heads);
    assert(in.k.batch == batch && in.v.batch == batch && heads % kv_heads == 0);
    assert(in.cu_q.size() == in.cu_k.size() && (in.cu_q.empty() || (batch == 1 && in.k_lengths.empty())));
    sequences = find_sequences(*this, options, in.k_lengths, in.cu_q, in.cu_k);
    constexpr double kSmallestScale = 1e-30, kLargestScale = 1e30;
    no_score_mods_ = kSmallestScale <= scale && scale <= kLargestScale && softcap == 0 && !bias && !mask &&
                     alibi.empty() && options.dropout == 0 &&
                     std::none_of(sinks.begin(), sinks.end(), is_large_score<T>);
  }

  /// The logit of head h's sink; −inf if there are none.
  T sink(Index h) const { return sinks.empty() ? -kInfinity : sinks[h]; }
  /// Where row (b, h, i) stands in lse (B, Hq, Tq).
  Index row(Index b, Index h, Index i) const { return (b * heads + h) * tq + i; }
  /// Whether scores are scaled products (so the largest product has the largest score), masked by ranges
  /// alone, and no probability is dropped: the kernels then skip all steps between the products, and the
  /// scale is multiplied in where they take powers. A scale or a sink of extreme size takes the general path.
  bool no_score_mods() const { return no_score_mods_; }
  /// Whether query i sees key j of its sequence.
  bool visible(const Sequence& s, Index h, Index i, Index j) const {
    const Range keys = s.keys_of(i);
    return keys.begin <= j && j < keys.end && (!mask || mask.row(s.b, h, i)[j] != 0);
  }
  /// Whether query i sees no key of its sequence; a bias of −inf hides a key as the mask does. (Scores that
  /// are all −inf for another reason come from an Inf in q or k and have no softmax.)
  bool fully_masked(const Sequence& s, Index h, Index i) const {
    const Range keys = s.keys_of(i);
    for (Index j = keys.begin; j < keys.end; ++j) {
      const bool hidden_by_bias = bias && bias.row(s.b, h, i)[j] == -kInfinity;
      if (!hidden_by_bias && visible(s, h, i, j)) return false;
    }
    return true;
  }

  /// Whether a bias may hide all keys of a query that has a sink, so that its denominator looks like any
  /// other.
  bool may_see_sink_alone() const { return bias && !sinks.empty(); }

  /// The denominator l = Σ_j exp(s_ij − m) of query i, as the recurrence has found it.
  struct Denominator {
    T sum;
    bool fully_masked;  // the query saw no key: its output is 0, whatever its sums are
  };
  Denominator denominator(T sum, const Sequence& s, Index h, Index i) const {
    if (sum > 0 && std::isfinite(sum) && !may_see_sink_alone()) return {sum, false};
    // Scores that are all −inf have no softmax; a sink that is Inf or NaN may be all that there is.
    if (!fully_masked(s, h, i)) return {sum == 0 ? std::numeric_limits<T>::quiet_NaN() : sum, false};
    return {sum == 0 ? T{0} : T{1}, true};
  }

 private:
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();
  bool no_score_mods_;
};

}  // namespace tilegrad::kernels
