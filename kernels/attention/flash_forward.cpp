// Flash attention, forward (T. Dao et al., "FlashAttention", 2022; M. Milakov, N. Gimelshein, "Online
// normalizer calculation for softmax", 2018).
//
// For one query the output is o = Σ_j exp(s_j) v_j / Σ_j exp(s_j). With any number m,
//   o = Σ_j exp(s_j − m) v_j / Σ_j exp(s_j − m),
// and m = max_j s_j keeps exp from overflowing. The maximum is not known before the last key. So walk over
// the keys in blocks, and keep for what has been seen so far
//   m = max_j s_j,   l = Σ_j exp(s_j − m),   O = Σ_j exp(s_j − m) v_j.
// A new block of keys J changes them to
//   m' = max(m, max_J s_j),   α = exp(m − m'),
//   l' = α l + Σ_J exp(s_j − m'),   O' = α O + Σ_J exp(s_j − m') v_j.
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
//
// With fewer queries than lanes the query heads that share K and V lie side by side in the lanes of one panel
// ("pack GQA"), and if that leaves too few tasks, the keys are split ("split-KV"). Each split has its own m, l and
// O, which are merged at the end, in the order of the splits, as if the keys of one split were a single block.
//
// Inputs that are stored in bf16 are widened to float tile by tile, in front of the products.
#include "tilegrad/kernels/attention/attention.h"
#include "tilegrad/kernels/attention/flash_decode.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/attention/flash_forward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/attention/score_mods-inl.h"
#include "tilegrad/kernels/attention/workspace.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

template <class Stored>
class FlashForward {
  using T = Compute<Stored>;

 public:
  FlashForward(HeadsView<Stored> out, std::span<T> lse, const AttentionProblem<Stored>& problem)
      : out_(out),
        lse_(lse),
        problem_(problem),
        no_score_mods_(problem.no_score_mods()),
        c_(to_log2(problem)),
        schedule_(problem, kPanel<T>),
        splits_(schedule_.splits()),
        workspace_({{&Pieces::q, schedule_.panels_per_tile() * problem.dim * kPanel<T>},
                    {&Pieces::states, splits_ > 1 ? 0 : states_size()},
                    {&Pieces::scores, schedule_.tile().keys * kPanel<T>},
                    {&Pieces::aux, no_score_mods_ ? 0 : schedule_.tile().keys * kPanel<T>},
                    {&Pieces::row, schedule_.tile().keys},
                    {&Pieces::wide_k, wide(schedule_.tile().keys, problem.dim)},
                    {&Pieces::wide_v, wide(schedule_.tile().keys, problem.dim_v)},
                    {&Pieces::wide_rows, wide(kPanel<T>, std::max(problem.dim, problem.dim_v))}}),
        split_states_(splits_ > 1 ? schedule_.tasks() * splits_ * states_size() * Index{sizeof(T)} : 0,
                      memory::Category::workspace) {}

  void run() {
    if (splits_ == 1) {
      workspace_.run(schedule_.tasks(), [&](Index n, const Pieces& w) {
        const Task task = schedule_.task(n);
        attend(task, 0, w.states, w);
        for_each_panel(task, w.states, w, [&](const QueryPanel& p) { finish(p, w); });
      });
      return;
    }
    workspace_.run(schedule_.tasks() * splits_, [&](Index n, const Pieces& w) {
      attend(schedule_.task(n / splits_), n % splits_, split_states(n), w);
    });
    workspace_.run(schedule_.tasks(), [&](Index n, const Pieces& w) {
      for_each_panel(schedule_.task(n), split_states(n * splits_), w, [&](const QueryPanel& p) {
        for (Index split = 1; split < splits_; ++split) merge(p, split * states_size());
        finish(p, w);
      });
    });
  }

 private:
  // Sums of sums lose less to rounding than one long sum.
  static constexpr Index kSumRows = 16;

  using Task = ForwardSchedule::Task;

  // A thread's memory. The wide pieces are for what is stored in fewer bits than T: keys, values, and the rows of a
  // panel.
  struct Pieces {
    T *q, *states, *scores, *aux, *row, *wide_k, *wide_v, *wide_rows;
  };

  // One panel of rows (the queries of a head, or of several), with the state of the recurrence.
  struct QueryPanel {
    Tile tile;  // its keys are those that some of the queries see
    T* q;       // (D, panel): Qᵀ
    T* o;       // (Dv, panel): Oᵀ
    T* max;     // (panel): m
    T* sum;     // (panel): l
  };

  static Index wide(Index rows, Index cols) { return std::is_same_v<Stored, T> ? 0 : rows * cols; }
  // m, l and O of one panel, and of all panels of a task.
  Index state_size() const { return (problem_.dim_v + 2) * kPanel<T>; }
  Index states_size() const { return schedule_.panels_per_tile() * state_size(); }
  T* split_states(Index n) const { return reinterpret_cast<T*>(split_states_.data()) + n * states_size(); }

  // Lets the rows of a task see one split of the keys.
  HWY_ATTR void attend(const Task& task, Index split, T* states, const Pieces& w) const {
    for_each_panel(task, states, w, [&](const QueryPanel& p) HWY_ATTR { start(p, split == 0, w); });
    const Range all = split_of(task.sequence->keys_of(task.queries), split, splits_);
    const auto k = problem_.in.k.head(task.sequence->b, task.hkv);
    const auto v = problem_.in.v.head(task.sequence->b, task.hkv);
    for (Index j = all.begin; j < all.end; j += schedule_.tile().keys) {
      const Range tile_keys = {j, std::min(j + schedule_.tile().keys, all.end)};
      const auto keys = widened(k.row_block(j, tile_keys.size()), w.wide_k);
      const auto values = widened(v.row_block(j, tile_keys.size()), w.wide_v);
      for_each_panel(task, states, w, [&](const QueryPanel& p) HWY_ATTR {
        Tile tile = p.tile;
        tile.keys = {std::max(tile_keys.begin, p.tile.keys.begin), std::min(tile_keys.end, p.tile.keys.end)};
        if (tile.keys.empty()) return;
        const Index first = tile.keys.begin - j, n = tile.keys.size();
        add_keys(p, tile, keys.row_block(first, n), values.row_block(first, n), w);
      });
    }
  }

  template <class F>
  HWY_ATTR void for_each_panel(const Task& task, T* states, const Pieces& w, F&& f) const {
    T* q = w.q;
    for (Index i = task.queries.begin; i < task.queries.end; i += kPanel<T>) {
      const Range queries = {i, std::min(i + kPanel<T>, task.queries.end)};
      const Tile tile = {task.sequence, task.h, queries, task.sequence->keys_of(queries), task.heads};
      T *o = states, *max = o + problem_.dim_v * kPanel<T>;
      f(QueryPanel{tile, q, o, max, max + kPanel<T>});
      states += state_size();
      q += problem_.dim * kPanel<T>;
    }
  }

  // A sink is part of the recurrence once: where the first keys are.
  HWY_ATTR void start(const QueryPanel& p, bool first, const Pieces& w) const {
    constexpr T kNothing = -std::numeric_limits<T>::infinity();
    pack_queries(p, w);
    std::fill_n(p.o, problem_.dim_v * kPanel<T>, T{0});
    std::fill_n(p.max, kPanel<T>, kNothing);
    std::fill_n(p.sum, kPanel<T>, T{0});
    if (!first) return;
    p.tile.for_each_row([&](Index lane, Index h, Index) {
      const T sink = problem_.sink(h);
      p.max[lane] = sink * (std::numbers::log2e_v<T> / c_);
      p.sum[lane] = sink == kNothing ? T{0} : T{1};
    });
  }

  HWY_ATTR void pack_queries(const QueryPanel& p, const Pieces& w) const {
    const Index n = p.tile.queries.size();
    if (p.tile.rows() < kPanel<T>) std::fill_n(p.q, problem_.dim * kPanel<T>, T{0});
    for (Index i = 0; i < p.tile.heads; ++i) {
      const auto q = widened(problem_.in.q.head(p.tile.b(), p.tile.h + i).row_block(p.tile.queries.begin, n),
                             w.wide_rows);
      transpose(p.q + i * n, kPanel<T>, q.data, q.stride, n, q.cols);
    }
  }

  HWY_ATTR void add_keys(const QueryPanel& p, const Tile& tile, Mat<const T> k, Mat<const T> v,
                         const Pieces& w) const {
    const Tag<T> d;
    T* s = w.scores;
    const Index keys = tile.keys.size();
    auto max0 = hn::Load(d, p.max), max1 = hn::Load(d, p.max + kLanes<T>);
    const auto old0 = max0, old1 = max1;
    const QueryLanes<Stored> scores = {problem_, w.aux, w.row};
    const auto store = [&](Index j, Vec<T> x0, Vec<T> x1) HWY_ATTR {
      store_row(s, j, x0, x1);
      max0 = hn::Max(x0, max0);
      max1 = hn::Max(x1, max1);
    };
    if (!no_score_mods_) {
      multiply_keys(p, tile, k, s, [&](Index j, Vec<T> x0, Vec<T> x1) HWY_ATTR { store_row(s, j, x0, x1); });
      scores.apply(s, tile);
      for (Index j = 0; j < keys; ++j)
        store(j, hn::Load(d, panel_row(s, j)), hn::Load(d, panel_row(s, j) + kLanes<T>));
    } else if (tile.is_partial()) {
      const LaneMask<T> seen(tile);
      multiply_keys(p, tile, k, s, [&](Index j, Vec<T> x0, Vec<T> x1) HWY_ATTR {
        if (!seen.masks_any(j)) return store(j, x0, x1);
        store(j, seen.mask(j, 0, x0), seen.mask(j, kLanes<T>, x1));
      });
    } else {
      multiply_in_parts<T>(keys, k.cols, score_part(problem_), RowMajor<T>{k.data, k.stride}, p.q, s, store);
    }
    const auto c = hn::Set(d, c_), shift0 = neg_shift(max0), shift1 = neg_shift(max1);
    const auto alpha0 = exp2<T>(hn::MulAdd(old0, c, shift0)), alpha1 = exp2<T>(hn::MulAdd(old1, c, shift1));
    store_row(p.max, 0, max0, max1);
    auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
    for (Index begin = 0; begin < keys; begin += kSumRows) {  // S becomes P
      auto part0 = hn::Zero(d), part1 = hn::Zero(d);
      for (Index j = begin; j < std::min(begin + kSumRows, keys); ++j) {
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
    if (problem_.options.dropout > 0) scores.drop(s, tile);
    if (has_masked_pairs(tile) && !masked_values_are_finite(tile, v)) {
      for_each_vector(p.o, {0, v.cols}, [&](Index, Index lane, Vec<T> x) HWY_ATTR {
        return hn::Mul(x, lane == 0 ? alpha0 : alpha1);
      });
      add_visible_values(p, tile, s, v);
    } else {
      add_values(p, tile, s, v, alpha0, alpha1);
    }
  }

  // Sᵀ = K Qᵀ, where a mask may cut the tile.
  template <class F>
  HWY_ATTR void multiply_keys(const QueryPanel& p, const Tile& tile, Mat<const T> k, T* s, F&& finish) const {
    multiply_in_parts<T>(tile.template keys_by_half<T>(), k.cols, score_part(problem_),
                         RowMajor<T>{k.data, k.stride}, p.q, s, finish);
  }

  // Whether some row does not see some key, and whether the values of those keys hold neither NaN nor Inf.
  bool has_masked_pairs(const Tile& tile) const { return tile.is_partial() || problem_.in.mask; }
  HWY_ATTR bool masked_values_are_finite(const Tile& tile, Mat<const T> v) const {
    if (problem_.in.mask) return all_finite(v);
    const Range seen = tile.keys_visible_to_all();
    return all_finite(v.row_block(0, seen.begin)) && all_finite(v.row_block(seen.end, v.rows - seen.end));
  }

  // −c m; 0 as long as nothing was seen, since −∞ − (−∞) is no number.
  HWY_ATTR Vec<T> neg_shift(Vec<T> max) const {
    const Tag<T> d;
    const auto nothing = hn::Eq(max, hn::Set(d, -std::numeric_limits<T>::infinity()));
    return hn::IfThenZeroElse(nothing, hn::Mul(max, hn::Set(d, -c_)));
  }

  // Oᵀ = α Oᵀ + Vᵀ Pᵀ
  HWY_ATTR void add_values(const QueryPanel& p, const Tile& tile, const T* probabilities, Mat<const T> v,
                           Vec<T> alpha0, Vec<T> alpha1) const {
    const Tag<T> d;
    multiply<T>(v.cols, tile.template keys_by_half<T>(), ColMajor<T>{v.data, v.stride}, probabilities,
                [&](Index c, Vec<T> x0, Vec<T> x1) HWY_ATTR {
                  const T* row = panel_row(p.o, c);
                  store_row(p.o, c, hn::MulAdd(alpha0, hn::Load(d, row), x0),
                            hn::MulAdd(alpha1, hn::Load(d, row + kLanes<T>), x1));
                });
  }

  // Oᵀ += Vᵀ Pᵀ for values with NaN or Inf, where some queries must not see them: a probability of 0 does not
  // hide a NaN, since 0 · NaN is NaN. Rare, so in plain loops.
  void add_visible_values(const QueryPanel& p, const Tile& tile, const T* probabilities,
                          Mat<const T> v) const {
    for (Index j = 0; j < v.rows; ++j) {
      tile.for_each_row([&](Index lane, Index h, Index i) {
        if (!problem_.visible(*tile.sequence, h, i, tile.keys.begin + j)) return;
        for (Index c = 0; c < v.cols; ++c)
          panel_row(p.o, c)[lane] += panel_row(probabilities, j)[lane] * v(j, c);
      });
    }
  }

  // Adds the keys of another split, whose state lies `distance` further on.
  HWY_ATTR void merge(const QueryPanel& p, Index distance) const {
    const Tag<T> d;
    for (Index lane = 0; lane < p.tile.rows(); lane += kLanes<T>) {
      T* m = p.max + lane;
      const auto mine = hn::Load(d, m), other = hn::Load(d, m + distance), max = hn::Max(mine, other);
      const auto c = hn::Set(d, c_), shift = neg_shift(max);
      const auto a = exp2<T>(hn::MulAdd(mine, c, shift)), b = exp2<T>(hn::MulAdd(other, c, shift));
      const auto add = [&](T* x) HWY_ATTR {
        hn::Store(hn::MulAdd(b, hn::Load(d, x + distance), hn::Mul(a, hn::Load(d, x))), d, x);
      };
      hn::Store(max, d, m);
      add(p.sum + lane);
      for (Index i = 0; i < problem_.dim_v; ++i) add(panel_row(p.o, i) + lane);
    }
  }

  // O = Oᵀᵀ / l, LSE = scale m + log l.
  HWY_ATTR void finish(const QueryPanel& p, const Pieces& w) const {
    const Tag<T> d;
    const Tile& tile = p.tile;
    const auto usual = [&](const T* sums) HWY_ATTR {
      const auto sum = hn::Load(d, sums);
      return hn::AllTrue(d, hn::And(hn::Gt(sum, hn::Zero(d)), hn::IsFinite(sum)));
    };
    const auto inverse = [&](const T* sums) HWY_ATTR {
      const auto sum = hn::Load(d, sums);
      return hn::IfThenZeroElse(hn::Eq(sum, hn::Zero(d)), hn::Div(hn::Set(d, T{1}), sum));
    };
    if (!usual(p.sum) || !usual(p.sum + kLanes<T>)) settle_rows(p);
    write_lse(p);
    const auto inverse0 = inverse(p.sum), inverse1 = inverse(p.sum + kLanes<T>);
    for_each_vector(p.o, {0, problem_.dim_v}, [&](Index, Index lane, Vec<T> x) HWY_ATTR {
      return hn::Mul(x, lane == 0 ? inverse0 : inverse1);
    });
    const Index n = tile.queries.size();
    for (Index i = 0; i < tile.heads; ++i) {
      store_transposed(out_.head(tile.b(), tile.h + i).row_block(tile.queries.begin, n), Write::overwrite,
                       p.o + i * n, w.wide_rows);
    }
  }

  // Rows that see nothing, and those that have no softmax.
  void settle_rows(const QueryPanel& p) const {
    p.tile.for_each_row([&](Index lane, Index h, Index i) {
      const auto [sum, fully_masked] = problem_.denominator(p.sum[lane], *p.tile.sequence, h, i);
      p.sum[lane] = sum;
      for (Index c = 0; fully_masked && c < problem_.dim_v; ++c) panel_row(p.o, c)[lane] = 0;
    });
  }

  // In double: a rounding of LSE is a relative error of every probability in the backward pass.
  HWY_ATTR void write_lse(const QueryPanel& p) const {
    const hn::ScalableTag<double> d;
    HWY_ALIGN double lse[kPanel<T>] = {};
    for (Index lane = 0; lane < p.tile.rows(); ++lane) lse[lane] = static_cast<double>(p.sum[lane]);
    for (Index lane = 0; lane < p.tile.rows(); lane += kLanes<double>)
      hn::Store(hn::Log(d, hn::Load(d, lse + lane)), d, lse + lane);
    p.tile.for_each_row([&](Index lane, Index h, Index i) {
      const double max = static_cast<double>(p.max[lane] * c_) * std::numbers::ln2;
      // Highway's logarithm is that of a finite number.
      const double log = p.sum[lane] > 0 ? lse[lane] : std::log(static_cast<double>(p.sum[lane]));
      lse_[static_cast<std::size_t>(problem_.row(p.tile.b(), h, i))] = static_cast<T>(max + log);
    });
  }

  HeadsView<Stored> out_;
  std::span<T> lse_;
  const AttentionProblem<Stored>& problem_;
  bool no_score_mods_;
  T c_;  // scores are c_ times what panels hold, in units of log 2
  ForwardSchedule schedule_;
  Index splits_;  // of the keys
  Workspace<T, Pieces> workspace_;
  memory::Block split_states_;  // (tasks, splits): the states of their panels
};

void forward_f32(HeadsView<float> out, std::span<float> lse, const AttentionProblem<float>& problem) {
  FlashForward<float>(out, lse, problem).run();
}
void forward_f64(HeadsView<double> out, std::span<double> lse, const AttentionProblem<double>& problem) {
  FlashForward<double>(out, lse, problem).run();
}
void forward_bf16(HeadsView<bf16> out, std::span<float> lse, const AttentionProblem<bf16>& problem) {
  FlashForward<bf16>(out, lse, problem).run();
}

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels {

HWY_EXPORT(forward_f32);
HWY_EXPORT(forward_f64);
HWY_EXPORT(forward_bf16);

template <>
void flash_attention<float>(HeadsView<float> out, std::span<float> lse, const AttentionInputs<float>& in,
                            const AttentionOptions& options) {
  const AttentionProblem<float> problem(in, options);
  if (problem.is_decode()) return flash_decode(out, lse, problem);
  HWY_DYNAMIC_DISPATCH(forward_f32)(out, lse, problem);
}
template <>
void flash_attention<double>(HeadsView<double> out, std::span<double> lse, const AttentionInputs<double>& in,
                             const AttentionOptions& options) {
  const AttentionProblem<double> problem(in, options);
  if (problem.is_decode()) return flash_decode(out, lse, problem);
  HWY_DYNAMIC_DISPATCH(forward_f64)(out, lse, problem);
}
template <>
void flash_attention<bf16>(HeadsView<bf16> out, std::span<float> lse, const AttentionInputs<bf16>& in,
                           const AttentionOptions& options) {
  HWY_DYNAMIC_DISPATCH(forward_bf16)(out, lse, AttentionProblem<bf16>(in, options));
}

}  // namespace tilegrad::kernels
#endif
