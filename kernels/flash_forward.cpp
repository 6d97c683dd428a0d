// Flash attention, forward (T. Dao et al., "FlashAttention", 2022; M. Milakov, N. Gimelshein, "Online
// normalizer calculation for softmax", 2018).
//
// For one query the output is o = Σ_j exp(s_j) v_j / Σ_j exp(s_j). With any number m,
//   o = Σ_j exp(s_j − m) v_j / Σ_j exp(s_j − m),
// and m = max_j s_j keeps exp from overflowing. The maximum is not known before the last key. So walk over
// the keys in blocks, and keep for what has been seen so far
//   m = max_j s_j,   l = Σ_j exp(s_j − m),   O = Σ_j exp(s_j − m) v_j.
// A new block of keys J changes them to
//   m' = max(m, max_J s_j),   α = exp(m − m'),   l' = α l + Σ_J exp(s_j − m'),   O' = α O + Σ_J exp(s_j − m')
//   v_j.
// After the last block o = O / l and LSE = m + log l. A sink is a key without value that comes first:
// m = sink, l = 1, O = 0. Without it m = −∞.
//
// 2^x is cheaper than e^x: with c = scale · log₂ e, exp(scale s − scale m) = exp2(c s − c m), one
// multiplication and addition in one instruction.
//
// The lanes of a vector are queries. A task has a block of queries, in panels of two vectors; Sᵀ, Pᵀ and Oᵀ
// are panels, and so is Qᵀ, transposed once. Then m, l and α are vectors and nothing sums across lanes:
//   Sᵀ = K Qᵀ,   Pᵀ = exp2(c Sᵀ − c m),   Oᵀ = α Oᵀ + Vᵀ Pᵀ.
// K and V are read element by element from their natural layout. The result depends on shapes and options
// alone, not on threads: a task does all of its queries' work, in a fixed order.
#include "kernels/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/flash_forward.cpp"
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)  // need fixed widths
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/attention_scores-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

template <class T>
class FlashForward {
 public:
  FlashForward(Heads<T> out, std::span<T> lse, const AttentionProblem<T>& problem)
      : out_(out),
        lse_(lse),
        problem_(problem),
        plain_(problem.plain()),
        c_(to_log2(problem)),
        tile_(tile_sizes(problem)),
        panels_(ceil_div(tile_.queries, kPanel<T>)),
        blocks_(cut(problem.sequences, &Sequence::queries, tile_.queries)),
        scratch_({panels_ * problem.dim * kPanel<T>, panels_ * problem.dim_v * kPanel<T>,
                  2 * panels_ * kPanel<T>, tile_.keys * kPanel<T>, plain_ ? 0 : tile_.keys * kPanel<T>,
                  tile_.keys}) {}

  void run() {
    parallel_tasks(static_cast<Index>(blocks_.size()) * problem_.heads,
                   [&](Index task, int thread) { run_task(task, thread); });
  }

 private:
  // Sums of sums lose less to rounding than one long sum.
  static constexpr Index kSumRows = 16;

  enum Piece : std::size_t { kQ, kO, kStatistics, kScores, kAux, kRow };

  // One panel of queries, with the state of the recurrence.
  struct QueryPanel {
    Range queries, keys;  // the keys that some of the queries see
    T* q;                 // (D, panel): Qᵀ
    T* o;                 // (Dv, panel): Oᵀ
    T* max;               // (panel): m
    T* sum;               // (panel): l
  };

  static TileSizes tile_sizes(const AttentionProblem<T>& problem) {
    const TileSizes& wanted = problem.options.tiles;
    const Index keys = wanted.keys > 0 ? wanted.keys : 128;
    const Index queries = wanted.queries > 0 ? wanted.queries : problem.tq <= 256 ? 64 : 128;
    return {std::min(queries, std::max<Index>(problem.tq, 1)),
            std::min(keys, std::max<Index>(problem.tk, 1))};
  }

  // The blocks of a head follow each other, because they share K and V. Its last block comes first: under a
  // causal mask it has the most work.
  void run_task(Index task, int thread) const {
    const Block& some = blocks_[static_cast<std::size_t>(task / problem_.heads)];
    const Index number = task - some.first * problem_.heads;
    const Index h = number / some.count, last_first = some.count - 1 - number % some.count;
    const Block& block = blocks_[static_cast<std::size_t>(some.first + last_first)];
    const Tile at = {&problem_.sequences[static_cast<std::size_t>(block.sequence)],
                     h,
                     h / problem_.group(),
                     block.rows,
                     {}};
    attend(at, thread);
  }

  HWY_ATTR void attend(const Tile& block, int thread) const {
    const Range queries = block.queries;
    for (Index i = queries.begin; i < queries.end; i += kPanel<T>) start(panel(block, i, thread), block);
    const Range keys = block.sequence->keys_of(queries);
    for (Index j = keys.begin; j < keys.end; j += tile_.keys) {
      const Range some = {j, std::min(j + tile_.keys, keys.end)};
      const auto k = rows(problem_.in.k, block, some), v = rows(problem_.in.v, block, some);
      for (Index i = queries.begin; i < queries.end; i += kPanel<T>) {
        const QueryPanel p = panel(block, i, thread);
        const Range seen = {std::max(some.begin, p.keys.begin), std::min(some.end, p.keys.end)};
        if (seen.empty()) continue;
        add_keys(p, {block.sequence, block.h, block.hkv, p.queries, seen},
                 k.row_block(seen.begin - j, seen.size()), v.row_block(seen.begin - j, seen.size()), thread);
      }
    }
    for (Index i = queries.begin; i < queries.end; i += kPanel<T>) finish(panel(block, i, thread), block);
  }

  static Mat<const T> rows(const Heads<const T>& x, const Tile& at, Range keys) {
    return x.head(at.b(), at.hkv).row_block(keys.begin, keys.size());
  }

  QueryPanel panel(const Tile& block, Index i, int thread) const {
    const Index number = (i - block.queries.begin) / kPanel<T>;
    const Range queries = {i, std::min(i + kPanel<T>, block.queries.end)};
    T* statistics = scratch_.piece(thread, kStatistics) + 2 * number * kPanel<T>;
    return {queries,
            block.sequence->keys_of(queries),
            scratch_.piece(thread, kQ) + number * problem_.dim * kPanel<T>,
            scratch_.piece(thread, kO) + number * problem_.dim_v * kPanel<T>,
            statistics,
            statistics + kPanel<T>};
  }

  HWY_ATTR void start(const QueryPanel& p, const Tile& block) const {
    pack_transposed<T>(p.q,
                       problem_.in.q.head(block.b(), block.h).row_block(p.queries.begin, p.queries.size()));
    std::fill_n(p.o, problem_.dim_v * kPanel<T>, T{0});
    constexpr T kNothing = -std::numeric_limits<T>::infinity();
    const T sink = problem_.in.sinks.empty() ? kNothing
                                             : problem_.in.sinks[static_cast<std::size_t>(block.h)] *
                                                   (std::numbers::log2e_v<T> / c_);
    std::fill_n(p.max, kPanel<T>, sink);
    std::fill_n(p.sum, kPanel<T>, sink == kNothing ? T{0} : T{1});
  }

  HWY_ATTR void add_keys(const QueryPanel& p, const Tile& at, Mat<const T> k, Mat<const T> v,
                         int thread) const {
    const Tag<T> d;
    T* s = scratch_.piece(thread, kScores);
    auto max0 = hn::Load(d, p.max), max1 = hn::Load(d, p.max + kLanes<T>);
    const auto old0 = max0, old1 = max1;
    const bool modified = !plain_ || at.cut();
    multiply_in_parts<T>(k.rows, k.cols, score_part(problem_), Natural<T>{k.data, k.stride}, p.q, s,
                         [&](Index j, Vec<T> x0, Vec<T> x1) HWY_ATTR {
                           store_row(s, j, x0, x1);
                           if (modified) return;
                           max0 = hn::Max(x0, max0);
                           max1 = hn::Max(x1, max1);
                         });
    const ForwardScores<T> scores = {problem_, scratch_.piece(thread, kAux), scratch_.piece(thread, kRow)};
    if (modified) {
      scores.modify(s, at);
      for (Index j = 0; j < k.rows; ++j) {
        max0 = hn::Max(hn::Load(d, panel_row(s, j)), max0);
        max1 = hn::Max(hn::Load(d, panel_row(s, j) + kLanes<T>), max1);
      }
    }
    const auto c = hn::Set(d, c_), shift0 = neg_shift(max0), shift1 = neg_shift(max1);
    const auto alpha0 = exp2<T>(hn::MulAdd(old0, c, shift0)), alpha1 = exp2<T>(hn::MulAdd(old1, c, shift1));
    store_row(p.max, 0, max0, max1);
    auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
    for (Index begin = 0; begin < k.rows; begin += kSumRows) {  // S becomes P
      auto part0 = hn::Zero(d), part1 = hn::Zero(d);
      for (Index j = begin; j < std::min(begin + kSumRows, k.rows); ++j) {
        const auto p0 = exp2<T>(hn::MulAdd(hn::Load(d, panel_row(s, j)), c, shift0));
        const auto p1 = exp2<T>(hn::MulAdd(hn::Load(d, panel_row(s, j) + kLanes<T>), c, shift1));
        store_row(s, j, p0, p1);
        part0 = hn::Add(part0, p0);
        part1 = hn::Add(part1, p1);
      }
      sum0 = hn::Add(sum0, part0);
      sum1 = hn::Add(sum1, part1);
    }
    store_row(p.sum, 0, hn::MulAdd(alpha0, hn::Load(d, p.sum), sum0),
              hn::MulAdd(alpha1, hn::Load(d, p.sum + kLanes<T>), sum1));
    if (problem_.options.dropout > 0) scores.drop(s, at);
    add_values(p, at, s, v, alpha0, alpha1);
  }

  // −c m; 0 as long as nothing was seen, since −∞ − (−∞) is no number.
  HWY_ATTR Vec<T> neg_shift(Vec<T> max) const {
    const Tag<T> d;
    const auto nothing = hn::Eq(max, hn::Set(d, -std::numeric_limits<T>::infinity()));
    return hn::IfThenZeroElse(nothing, hn::Mul(max, hn::Set(d, -c_)));
  }

  // Oᵀ = α Oᵀ + Vᵀ Pᵀ
  HWY_ATTR void add_values(const QueryPanel& p, const Tile& at, const T* probabilities, Mat<const T> v,
                           Vec<T> alpha0, Vec<T> alpha1) const {
    const Tag<T> d;
    if ((at.cut() || problem_.in.mask) && !all_finite(v)) {
      add_seen_values(p, at, probabilities, v, alpha0, alpha1);
      return;
    }
    multiply<T>(v.cols, v.rows, Transposed<T>{v.data, v.stride}, probabilities,
                [&](Index c, Vec<T> x0, Vec<T> x1) HWY_ATTR {
                  const T* row = panel_row(p.o, c);
                  store_row(p.o, c, hn::MulAdd(alpha0, hn::Load(d, row), x0),
                            hn::MulAdd(alpha1, hn::Load(d, row + kLanes<T>), x1));
                });
  }

  // The same for values with NaN or Inf, where some queries must not see them: a probability of 0 does not
  // hide a NaN, since 0 · NaN is NaN. Rare, so in plain loops.
  HWY_ATTR void add_seen_values(const QueryPanel& p, const Tile& at, const T* probabilities, Mat<const T> v,
                                Vec<T> alpha0, Vec<T> alpha1) const {
    for_each_vector(p.o, {0, v.cols}, [&](Index, Index lane, Vec<T> x) HWY_ATTR {
      return hn::Mul(x, lane == 0 ? alpha0 : alpha1);
    });
    for (Index j = 0; j < v.rows; ++j) {
      for (Index i = at.queries.begin; i < at.queries.end; ++i) {
        if (!problem_.sees(*at.sequence, at.h, i, at.keys.begin + j)) continue;
        const Index lane = i - at.queries.begin;
        for (Index c = 0; c < v.cols; ++c)
          p.o[c * kPanel<T> + lane] += probabilities[j * kPanel<T> + lane] * v(j, c);
      }
    }
  }

  // O = Oᵀᵀ / l, LSE = scale m + log l; a row that saw nothing has l = 0.
  HWY_ATTR void finish(const QueryPanel& p, const Tile& block) const {
    const Tag<T> d;
    HWY_ALIGN T inverse[kPanel<T>];
    for (Index lane = 0; lane < kPanel<T>; ++lane) {
      if (p.sum[lane] == 0 && lane < p.queries.size() &&
          !problem_.blind(*block.sequence, block.h, p.queries.begin + lane))
        p.sum[lane] = std::numeric_limits<T>::quiet_NaN();
      inverse[lane] = p.sum[lane] == 0 ? T{0} : 1 / p.sum[lane];
    }
    for_each_vector(p.o, {0, problem_.dim_v}, [&](Index, Index lane, Vec<T> x) HWY_ATTR {
      return hn::Mul(x, hn::Load(d, inverse + lane));
    });
    const Mat<T> out = out_.head(block.b(), block.h).row_block(p.queries.begin, p.queries.size());
    transpose(out.data, out.stride, p.o, kPanel<T>, problem_.dim_v, p.queries.size());
    T* lse = lse_.data() + problem_.row(block.b(), block.h, p.queries.begin);
    for (Index lane = 0; lane < p.queries.size(); ++lane) {
      // In double: a rounding of LSE is a relative error of every probability in the backward pass.
      const double log2 = static_cast<double>(p.max[lane] * c_) + std::log2(static_cast<double>(p.sum[lane]));
      lse[lane] = static_cast<T>(log2 * std::numbers::ln2);
    }
  }

  Heads<T> out_;
  std::span<T> lse_;
  const AttentionProblem<T>& problem_;
  bool plain_;
  T c_;  // scores are c_ times what panels hold, in units of log 2
  TileSizes tile_;
  Index panels_;  // in a block of queries
  std::vector<Block> blocks_;
  Scratch<T> scratch_;
};

void forward_f32(Heads<float> out, std::span<float> lse, const AttentionProblem<float>& problem) {
  FlashForward<float>(out, lse, problem).run();
}
void forward_f64(Heads<double> out, std::span<double> lse, const AttentionProblem<double>& problem) {
  FlashForward<double>(out, lse, problem).run();
}

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels {

HWY_EXPORT(forward_f32);
HWY_EXPORT(forward_f64);

template <>
void flash_attention<float>(Heads<float> out, std::span<float> lse, const AttentionInputs<float>& in,
                            const AttentionOptions& options) {
  HWY_DYNAMIC_DISPATCH(forward_f32)(out, lse, AttentionProblem<float>(in, options));
}
template <>
void flash_attention<double>(Heads<double> out, std::span<double> lse, const AttentionInputs<double>& in,
                             const AttentionOptions& options) {
  HWY_DYNAMIC_DISPATCH(forward_f64)(out, lse, AttentionProblem<double>(in, options));
}

}  // namespace tilegrad::kernels
#endif
