// Flash attention, backward: m and l of rows whose LSE is not precise enough. For one SIMD target.
//
// P = exp(S − LSE) with LSE = m + log l as the forward pass kept it, rounded. That rounding is a relative
// error of all of the row's probabilities: 4e-6 at |LSE| = 100 in f32, and at 1e9 nothing of log l is left.
// Rows with large scores, as those that see nothing but keys with a mask of −1e9 or of the lowest number, are
// rare. So nothing more is kept for them; their m and l are found again, from the very scores that the tiles
// will have, and P = exp(S − m) / l.
#if defined(TILEGRAD_KERNELS_ATTENTION_ROW_STATISTICS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_ATTENTION_ROW_STATISTICS_INL_H_
#undef TILEGRAD_KERNELS_ATTENTION_ROW_STATISTICS_INL_H_
#else
#define TILEGRAD_KERNELS_ATTENTION_ROW_STATISTICS_INL_H_
#endif

#include <vector>

#include "tilegrad/kernels/attention/backward_tile-inl.h"
#include "tilegrad/kernels/attention/online_softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

template <class T>
class RowStatistics {
 public:
  RowStatistics(const FlashInputs<T>& in, std::span<const T> lse, const AttentionProblem<T>& problem)
      : in_(in), lse_(lse), problem_(problem), c_(to_log2(problem)) {
    if (std::any_of(lse.begin(), lse.end(), is_large_score<T>)) found_.resize(lse.size());
  }

  // Whether there is a row whose LSE is not precise enough.
  bool any() const { return !found_.empty(); }

  // Finds m and l of such rows among some queries of a head.
  HWY_ATTR void find(const SequenceTile& queries, Index h, const BackwardPieces<T>& w) {
    const Sequence& s = problem_.sequences[queries.sequence];
    const auto rows = lse_.subspan(problem_.row(s.b, h, queries.rows.begin), queries.rows.size());
    if (std::none_of(rows.begin(), rows.end(), is_large_score<T>)) return;
    Found* found = found_.data() + problem_.row(s.b, h, queries.rows.begin);
    for (Index i = 0; i < queries.rows.size(); ++i) {
      T sum;
      start_row(found[i].max, sum, problem_, c_, h, true);
      found[i].sum = static_cast<double>(sum);
    }
    const auto q = near_rows(in_.q, s.b, h, queries.rows, w.copied_q);
    const Range keys = s.keys_of(queries.rows);
    for (Index j = keys.begin; j < keys.end; j += kPanel<T>) {
      const Tile tile = {&s, h, queries.rows, {j, std::min(j + kPanel<T>, keys.end)}};
      scores_of(w.p, tile, q, w);
      for (Index i = 0; i < q.rows; ++i) add_keys(found[i], panel_row(w.p, i));
    }
  }

  // What a row's probabilities are computed from: P = 2^(c (x − max) + neg_log).
  struct Row {
    T max;
    double neg_log;
  };
  Row of(Index row) const {
    if (is_large_score(lse_[row])) return {found_[row].max, -std::log2(found_[row].sum)};
    const double lse = static_cast<double>(lse_[row]) * std::numbers::log2e;
    // exp2(S − ∞) = 0 in a row that saw nothing, while S + ∞ would not be.
    return {T{0}, std::isinf(lse) ? -std::abs(lse) : -lse};
  }
  // exp(sink − LSE) of head h.
  double sink_probability(Index h, Index row) const {
    const auto sink = static_cast<double>(problem_.sinks[h]);
    if (!is_large_score(lse_[row])) return std::exp(sink - static_cast<double>(lse_[row]));
    T max, sum;
    start_row(max, sum, problem_, c_, h, true);
    const auto c = static_cast<double>(c_);
    return std::exp2(c * (static_cast<double>(max) - static_cast<double>(found_[row].max))) / found_[row].sum;
  }

 private:
  struct Found {
    double sum;
    T max;
  };

  // The scores of a panel of keys, −∞ where a query does not see one.
  HWY_ATTR void scores_of(T* s, const Tile& tile, Mat<const T> q, const BackwardPieces<T>& w) const {
    constexpr T kNothing = -std::numeric_limits<T>::infinity();
    const Index hkv = tile.h / problem_.group_size();
    pack_transposed(w.kt, widened(StoredRows(in_.k, tile.b(), hkv, tile.keys), w.wide_k));
    const KeyLanes<T> scores = {problem_, nullptr, nullptr};
    store_in_parts(s, LaneSplit{0, q.rows, 0}, q.cols, score_part(problem_), RowMajor<T>{q.data, q.stride},
                   w.kt);
    scores.apply(s, tile);
    scores.mask_out(s, tile, kNothing);
    for (Index i = 0; tile.keys.size() < kPanel<T> && i < q.rows; ++i)
      std::fill(panel_row(s, i) + tile.keys.size(), panel_row(s, i + 1), kNothing);
  }

  // The recurrence of the forward pass, for one row.
  HWY_ATTR void add_keys(Found& row, const T* s) const {
    const Tag<T> d;
    const auto x0 = hn::Load(d, s), x1 = hn::Load(d, s + kLanes<T>);
    const T max = max_of_lanes(d, larger(hn::Max(x0, x1), hn::Set(d, row.max)));
    if (max == -std::numeric_limits<T>::infinity()) return;
    const auto c = hn::Set(d, c_), m = hn::Set(d, max);
    const auto power = [&](Vec<T> x) HWY_ATTR { return exp2<T>(hn::Sub(x, m), c, hn::Zero(d)); };
    const auto alpha = static_cast<double>(hn::GetLane(power(hn::Set(d, row.max))));
    row.sum =
        alpha * row.sum + static_cast<double>(hn::GetLane(hn::SumOfLanes(d, hn::Add(power(x0), power(x1)))));
    row.max = max;
  }

  const FlashInputs<T>& in_;
  std::span<const T> lse_;
  const AttentionProblem<T>& problem_;
  T c_;
  std::vector<Found> found_;  // (B, Hq, Tq) if there are any: of those rows, and of their neighbours
};

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
