// The statistics of the online softmax, for one SIMD target: what forward and decode remember of the keys
// that a row has seen, m = max_j s_j and l = Σ_j exp(s_j − m). See flash_forward-inl.h for the recurrence.
//
// m stands in the units of a panel, whose scores are c times what it holds, in units of log 2: s = c x log 2.
#if defined(TILEGRAD_KERNELS_ATTENTION_ONLINE_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_ATTENTION_ONLINE_SOFTMAX_INL_H_
#undef TILEGRAD_KERNELS_ATTENTION_ONLINE_SOFTMAX_INL_H_
#else
#define TILEGRAD_KERNELS_ATTENTION_ONLINE_SOFTMAX_INL_H_
#endif

#include <numbers>

#include "tilegrad/kernels/attention/score_mods-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

// exp(s − m) = 2^(c x − c m): one multiplication and addition, since −c m is the same for all keys. For a
// large m the product would be rounded by more than exp tolerates, or overflow. Then m is subtracted first: x
// − m is exact where it matters, and nothing is left to shift by.
template <class T>
class Powers {
 public:
  HWY_INLINE Powers(T c, Vec<T> max) : c_(hn::Set(Tag<T>(), c)) {
    const Tag<T> d;
    const auto size = hn::Abs(max);
    const auto bound = hn::Set(d, static_cast<T>(kLargeScore * std::numbers::log2e / static_cast<double>(c)));
    const auto large = hn::And(hn::Gt(size, bound), hn::Le(size, hn::Set(d, std::numeric_limits<T>::max())));
    any_large_ = !hn::AllFalse(d, large);
    base_ = hn::IfThenElseZero(large, max);
    // 0 as long as nothing was seen, since −∞ − (−∞) is no number.
    const auto nothing = hn::Eq(max, hn::Set(d, -std::numeric_limits<T>::infinity()));
    shift_ = hn::IfThenZeroElse(nothing, hn::Mul(hn::Sub(max, base_), hn::Set(d, -c)));
  }

  // Whether scores have to be rebased before their powers are taken.
  HWY_INLINE bool any_large() const { return any_large_; }
  HWY_INLINE Vec<T> rebase(Vec<T> x) const { return hn::Sub(x, base_); }
  // exp(s − m) for a rebased score.
  HWY_INLINE Vec<T> of(Vec<T> x) const { return exp2<T>(x, c_, shift_); }

 private:
  Vec<T> c_, base_, shift_;
  bool any_large_;
};

// Before the first key. A sink is a key without value, and is counted once: together with the first keys.
template <class T>
HWY_INLINE void start_row(T& max, T& sum, const AttentionProblem<T>& problem, T c, Index h, bool first) {
  constexpr T kNothing = -std::numeric_limits<T>::infinity();
  const T sink = first ? problem.sink(h) : kNothing;
  max = sink * (std::numbers::log2e_v<T> / c);
  sum = sink == kNothing ? T{0} : T{1};
}

// Adds the statistics of other keys to those of a vector of rows. The weights are those of what either side
// has summed with them.
template <class T>
struct MergeWeights {
  Vec<T> mine, other;

  HWY_INLINE Vec<T> merge(Vec<T> x, Vec<T> y) const { return hn::MulAdd(other, y, hn::Mul(mine, x)); }
};
template <class T>
HWY_INLINE MergeWeights<T> merge_statistics(T* max, T* sum, const T* other_max, const T* other_sum, T c) {
  const Tag<T> d;
  const auto mine = hn::Load(d, max), other = hn::Load(d, other_max), both = larger(other, mine);
  const Powers<T> powers(c, both);
  const MergeWeights<T> weights = {powers.of(powers.rebase(mine)), powers.of(powers.rebase(other))};
  hn::Store(both, d, max);
  hn::Store(weights.merge(hn::Load(d, sum), hn::Load(d, other_sum)), d, sum);
  return weights;
}

// What outputs are multiplied by: 1 / l, and 0 for rows that saw nothing.
template <class T>
HWY_INLINE Vec<T> inverse_of(Vec<T> sum) {
  const Tag<T> d;
  return hn::IfThenZeroElse(hn::Eq(sum, hn::Zero(d)), hn::Div(hn::Set(d, T{1}), sum));
}

// The end of all rows of a tile, of which max and sum hold whole vectors: LSE = m + log l, and l settled for
// rows that see nothing or have no softmax. clear(row) makes the output of a row 0.
template <class T>
class RowEnds {
 public:
  RowEnds(const AttentionProblem<T>& problem, T c)
      : problem_(problem),
        c_(c),
        scale_(problem.no_score_mods() ? static_cast<T>(problem.scale) : T{1}),
        largest_(kLargeScore * std::numbers::log2e / static_cast<double>(c)) {}

  template <class F>
  HWY_ATTR void finish(const Tile& tile, const T* max, T* sum, std::span<T> lse, F&& clear) const {
    if (!usual(tile.rows(), max, sum)) settle(tile, max, sum, clear);
    // In double: a rounding of LSE is a relative error of every probability in the backward pass.
    const hn::ScalableTag<double> d;
    constexpr Index kWidth = kLanes<double>;
    HWY_ALIGN double logs[kWidth] = {};
    tile.for_each_row([&](Index row, Index h, Index i) HWY_ATTR {
      const Index lane = row % kWidth;
      if (lane == 0) hn::Store(hn::Log(d, load_doubles(sum + row)), d, logs);
      // Highway's logarithm is that of a finite number.
      const double log = sum[row] > 0 ? logs[lane] : std::log(static_cast<double>(sum[row]));
      lse[static_cast<std::size_t>(problem_.row(tile.b(), h, i))] =
          static_cast<T>(largest_score(max[row]) + log);
    });
  }

 private:
  static HWY_INLINE Vec<double> load_doubles(const T* x) {
    const hn::ScalableTag<double> d;
    if constexpr (std::is_same_v<T, double>) {
      return hn::Load(d, x);
    } else {
      return hn::PromoteTo(d, hn::Load(hn::Rebind<T, decltype(d)>(), x));
    }
  }

  // Whether all rows have seen a key and have a softmax.
  HWY_ATTR bool usual(Index rows, const T* max, const T* sum) const {
    const Tag<T> d;
    if (problem_.may_see_sink_alone()) return false;
    for (Index row = 0; row < rows; row += kLanes<T>) {
      const auto l = hn::Load(d, sum + row), m = hn::Mul(hn::Load(d, max + row), hn::Set(d, scale_));
      if (!hn::AllTrue(d, hn::And(hn::Gt(l, hn::Zero(d)), hn::And(hn::IsFinite(l), hn::IsFinite(m)))))
        return false;
    }
    return true;
  }

  template <class F>
  void settle(const Tile& tile, const T* max, T* sum, F&& clear) const {
    tile.for_each_row([&](Index row, Index h, Index i) {
      if (std::isfinite(max[row]) && !std::isfinite(max[row] * scale_)) {
        sum[row] = std::numeric_limits<T>::quiet_NaN();  // a score beyond the largest number
        return;
      }
      const auto [l, fully_masked] = problem_.denominator(sum[row], *tile.sequence, h, i);
      sum[row] = l;
      if (fully_masked) clear(row);
    });
  }

  // m as a score, with the roundings that its powers had.
  double largest_score(T max) const {
    const bool large = std::isfinite(max) && std::abs(static_cast<double>(max)) > largest_;
    return large ? static_cast<double>(max * scale_) : static_cast<double>(max * c_) * std::numbers::ln2;
  }

  const AttentionProblem<T>& problem_;
  T c_, scale_;  // of what stands in panels, to units of log 2 and to scores
  double largest_;
};

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
