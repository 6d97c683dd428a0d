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
//
// With fewer queries than lanes the query heads that share K and V lie side by side in the lanes of one
// panel, and if that leaves too few tasks, the keys are cut into parts. Each part has its own m, l and O,
// which are merged at the end, in the order of the parts, as if the keys of one part were a single block.
//
// Inputs that are stored in bf16 are widened to float tile by tile, in front of the products.
#include "tilegrad/kernels/attention/attention.h"
#include "tilegrad/kernels/attention/flash_decode.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/attention/flash_forward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/attention/score_mods-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

template <class S>
class FlashForward {
  using T = Compute<S>;

 public:
  FlashForward(HeadsView<S> out, std::span<T> lse, const AttentionProblem<S>& problem)
      : out_(out),
        lse_(lse),
        problem_(problem),
        plain_(problem.plain()),
        c_(to_log2(problem)),
        tile_(tile_sizes(problem)),
        panels_(ceil_div(tile_.queries, kPanel<T>)),
        folded_(std::clamp<Index>(kPanel<T> / tile_.queries, 1, problem.group())),
        head_blocks_(problem.kv_heads * ceil_div(problem.group(), folded_)),
        blocks_(cut(problem.sequences, &Sequence::queries, tile_.queries)),
        parts_(panels_ > 1 ? 1 : parts_of_keys(tasks(), problem.tk)),
        scratch_({panels_ * problem.dim * kPanel<T>, parts_ > 1 ? 0 : states_size(), tile_.keys * kPanel<T>,
                  plain_ ? 0 : tile_.keys * kPanel<T>, tile_.keys, wide(tile_.keys, problem.dim),
                  wide(tile_.keys, problem.dim_v), wide(kPanel<T>, std::max(problem.dim, problem.dim_v))}),
        partial_(parts_ > 1 ? tasks() * parts_ * states_size() * static_cast<Index>(sizeof(T)) : 0,
                 memory::Category::workspace) {}

  void run() {
    if (parts_ == 1) {
      parallel_tasks(tasks(), [&](Index n, int thread) {
        const Task task = task_of(n);
        T* states = scratch_.piece(thread, kStates);
        attend(task, 0, states, thread);
        for_each_panel(task, states, thread, [&](const QueryPanel& p) { finish(p, thread); });
      });
      return;
    }
    parallel_tasks(tasks() * parts_,
                   [&](Index n, int thread) { attend(task_of(n / parts_), n % parts_, partial(n), thread); });
    parallel_tasks(tasks(), [&](Index n, int thread) {
      const Task task = task_of(n);
      for_each_panel(task, partial(n * parts_), thread, [&](const QueryPanel& p) {
        for (Index part = 1; part < parts_; ++part) merge(p, part * states_size());
        finish(p, thread);
      });
    });
  }

 private:
  // Sums of sums lose less to rounding than one long sum.
  static constexpr Index kSumRows = 16;

  // The last three are for what is stored in fewer bits than T: keys, values, and the rows of a panel.
  enum Piece : std::size_t { kQ, kStates, kScores, kAux, kRow, kWideK, kWideV, kWideRows };

  // Some queries, in `heads` heads from h on that share key/value head hkv.
  struct Task {
    const Sequence* sequence;
    Range queries;
    Index h, hkv, heads;
  };

  // One panel of rows (the queries of a head, or of several), with the state of the recurrence.
  struct QueryPanel {
    Tile at;  // its keys are those that some of the queries see
    T* q;     // (D, panel): Qᵀ
    T* o;     // (Dv, panel): Oᵀ
    T* max;   // (panel): m
    T* sum;   // (panel): l
  };

  // The longer the rows of K and V, the more queries must share them before the next ones come; but there
  // must be enough tasks for any number of threads.
  static TileSizes tile_sizes(const AttentionProblem<S>& problem) {
    constexpr Index kTasks = 16;
    const TileSizes& wanted = problem.options.tiles;
    const Index dim = std::max(problem.dim, problem.dim_v), longest = problem.longest_queries();
    Index queries = dim > 256 ? 512 : dim > 128 ? 256 : 128;
    while (queries > 64 && problem.batch * problem.heads * ceil_div(longest, queries) < kTasks) queries /= 2;
    if (wanted.queries > 0) queries = wanted.queries;
    const Index keys = wanted.keys > 0 ? wanted.keys : dim > 256 ? 64 : 128;
    return {std::clamp<Index>(queries, 1, std::max<Index>(longest, 1)),
            std::min(keys, std::max<Index>(problem.tk, 1))};
  }

  static Index wide(Index rows, Index cols) { return std::is_same_v<S, T> ? 0 : rows * cols; }
  Index tasks() const { return static_cast<Index>(blocks_.size()) * head_blocks_; }
  // m, l and O of one panel, and of all panels of a task.
  Index state_size() const { return (problem_.dim_v + 2) * kPanel<T>; }
  Index states_size() const { return panels_ * state_size(); }
  T* partial(Index n) const { return reinterpret_cast<T*>(partial_.data()) + n * states_size(); }

  // The blocks of a head follow each other, because they share K and V. Its last block comes first: under a
  // causal mask it has the most work.
  Task task_of(Index n) const {
    const Block& some = blocks_[static_cast<std::size_t>(n / head_blocks_)];
    const Index number = n - some.first * head_blocks_;
    const Index head_block = number / some.count, last_first = some.count - 1 - number % some.count;
    const Block& block = blocks_[static_cast<std::size_t>(some.first + last_first)];
    const Index blocks_of_group = head_blocks_ / problem_.kv_heads;
    const Index hkv = head_block / blocks_of_group, first = head_block % blocks_of_group * folded_;
    return {&problem_.sequences[static_cast<std::size_t>(block.sequence)], block.rows,
            hkv * problem_.group() + first, hkv, std::min(folded_, problem_.group() - first)};
  }

  // Lets the rows of a task see one part of the keys.
  HWY_ATTR void attend(const Task& task, Index part, T* states, int thread) const {
    for_each_panel(task, states, thread, [&](const QueryPanel& p) HWY_ATTR { start(p, part == 0, thread); });
    const Range all = part_of(task.sequence->keys_of(task.queries), part, parts_);
    const auto k = problem_.in.k.head(task.sequence->b, task.hkv);
    const auto v = problem_.in.v.head(task.sequence->b, task.hkv);
    for (Index j = all.begin; j < all.end; j += tile_.keys) {
      const Range some = {j, std::min(j + tile_.keys, all.end)};
      const auto keys = widened(k.row_block(j, some.size()), scratch_.piece(thread, kWideK));
      const auto values = widened(v.row_block(j, some.size()), scratch_.piece(thread, kWideV));
      for_each_panel(task, states, thread, [&](const QueryPanel& p) HWY_ATTR {
        Tile at = p.at;
        at.keys = {std::max(some.begin, p.at.keys.begin), std::min(some.end, p.at.keys.end)};
        if (at.keys.empty()) return;
        const Index first = at.keys.begin - j, n = at.keys.size();
        add_keys(p, at, keys.row_block(first, n), values.row_block(first, n), thread);
      });
    }
  }

  template <class F>
  HWY_ATTR void for_each_panel(const Task& task, T* states, int thread, F&& f) const {
    T* q = scratch_.piece(thread, kQ);
    for (Index i = task.queries.begin; i < task.queries.end; i += kPanel<T>) {
      const Range queries = {i, std::min(i + kPanel<T>, task.queries.end)};
      const Tile at = {task.sequence, task.h, task.hkv, queries, task.sequence->keys_of(queries), task.heads};
      T *o = states, *max = o + problem_.dim_v * kPanel<T>;
      f(QueryPanel{at, q, o, max, max + kPanel<T>});
      states += state_size();
      q += problem_.dim * kPanel<T>;
    }
  }

  // A sink is part of the recurrence once: where the first keys are.
  HWY_ATTR void start(const QueryPanel& p, bool first, int thread) const {
    constexpr T kNothing = -std::numeric_limits<T>::infinity();
    pack_queries(p, thread);
    std::fill_n(p.o, problem_.dim_v * kPanel<T>, T{0});
    std::fill_n(p.max, kPanel<T>, kNothing);
    std::fill_n(p.sum, kPanel<T>, T{0});
    if (!first) return;
    p.at.for_each_row([&](Index lane, Index h, Index) {
      const T sink = problem_.sink(h);
      p.max[lane] = sink * (std::numbers::log2e_v<T> / c_);
      p.sum[lane] = sink == kNothing ? T{0} : T{1};
    });
  }

  HWY_ATTR void pack_queries(const QueryPanel& p, int thread) const {
    const Index n = p.at.queries.size();
    if (p.at.rows() < kPanel<T>) std::fill_n(p.q, problem_.dim * kPanel<T>, T{0});
    for (Index i = 0; i < p.at.heads; ++i) {
      const auto q = widened(problem_.in.q.head(p.at.b(), p.at.h + i).row_block(p.at.queries.begin, n),
                             scratch_.piece(thread, kWideRows));
      transpose(p.q + i * n, kPanel<T>, q.data, q.stride, n, q.cols);
    }
  }

  HWY_ATTR void add_keys(const QueryPanel& p, const Tile& at, Mat<const T> k, Mat<const T> v,
                         int thread) const {
    const Tag<T> d;
    T* s = scratch_.piece(thread, kScores);
    const Index keys = at.keys.size();
    auto max0 = hn::Load(d, p.max), max1 = hn::Load(d, p.max + kLanes<T>);
    const auto old0 = max0, old1 = max1;
    const QueryLanes<S> scores = {problem_, scratch_.piece(thread, kAux), scratch_.piece(thread, kRow)};
    const auto store = [&](Index j, Vec<T> x0, Vec<T> x1) HWY_ATTR {
      store_row(s, j, x0, x1);
      max0 = hn::Max(x0, max0);
      max1 = hn::Max(x1, max1);
    };
    if (!plain_) {
      multiply_keys(p, at, k, s, [&](Index j, Vec<T> x0, Vec<T> x1) HWY_ATTR { store_row(s, j, x0, x1); });
      scores.modify(s, at);
      for (Index j = 0; j < keys; ++j)
        store(j, hn::Load(d, panel_row(s, j)), hn::Load(d, panel_row(s, j) + kLanes<T>));
    } else if (at.cut()) {
      const SeenByLane<T> seen(at);
      multiply_keys(p, at, k, s, [&](Index j, Vec<T> x0, Vec<T> x1) HWY_ATTR {
        if (!seen.cuts(j)) return store(j, x0, x1);
        store(j, seen.mask(j, 0, x0), seen.mask(j, kLanes<T>, x1));
      });
    } else {
      multiply_in_parts<T>(keys, k.cols, score_part(problem_), Natural<T>{k.data, k.stride}, p.q, s, store);
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
    if (problem_.options.dropout > 0) scores.drop(s, at);
    if (exposed(at) && !exposed_are_finite(at, v)) {
      for_each_vector(p.o, {0, v.cols}, [&](Index, Index lane, Vec<T> x) HWY_ATTR {
        return hn::Mul(x, lane == 0 ? alpha0 : alpha1);
      });
      add_seen_values(p, at, s, v);
    } else {
      add_values(p, at, s, v, alpha0, alpha1);
    }
  }

  // Sᵀ = K Qᵀ, where a mask may cut the tile.
  template <class F>
  HWY_ATTR void multiply_keys(const QueryPanel& p, const Tile& at, Mat<const T> k, T* s, F&& finish) const {
    multiply_in_parts<T>(at.template keys_by_half<T>(), k.cols, score_part(problem_),
                         Natural<T>{k.data, k.stride}, p.q, s, finish);
  }

  // Whether some row does not see some key, and whether the values of those keys hold neither NaN nor Inf.
  bool exposed(const Tile& at) const { return at.cut() || problem_.in.mask; }
  HWY_ATTR bool exposed_are_finite(const Tile& at, Mat<const T> v) const {
    if (problem_.in.mask) return all_finite(v);
    const Range seen = at.keys_seen_by_all();
    return all_finite(v.row_block(0, seen.begin)) && all_finite(v.row_block(seen.end, v.rows - seen.end));
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
    multiply<T>(v.cols, at.template keys_by_half<T>(), Transposed<T>{v.data, v.stride}, probabilities,
                [&](Index c, Vec<T> x0, Vec<T> x1) HWY_ATTR {
                  const T* row = panel_row(p.o, c);
                  store_row(p.o, c, hn::MulAdd(alpha0, hn::Load(d, row), x0),
                            hn::MulAdd(alpha1, hn::Load(d, row + kLanes<T>), x1));
                });
  }

  // Oᵀ += Vᵀ Pᵀ for values with NaN or Inf, where some queries must not see them: a probability of 0 does not
  // hide a NaN, since 0 · NaN is NaN. Rare, so in plain loops.
  void add_seen_values(const QueryPanel& p, const Tile& at, const T* probabilities, Mat<const T> v) const {
    for (Index j = 0; j < v.rows; ++j) {
      at.for_each_row([&](Index lane, Index h, Index i) {
        if (!problem_.sees(*at.sequence, h, i, at.keys.begin + j)) return;
        for (Index c = 0; c < v.cols; ++c)
          panel_row(p.o, c)[lane] += panel_row(probabilities, j)[lane] * v(j, c);
      });
    }
  }

  // Adds another part's keys to what was seen so far. Its state lies `distance` behind.
  HWY_ATTR void merge(const QueryPanel& p, Index distance) const {
    const Tag<T> d;
    for (Index lane = 0; lane < p.at.rows(); lane += kLanes<T>) {
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
  HWY_ATTR void finish(const QueryPanel& p, int thread) const {
    const Tag<T> d;
    const Tile& at = p.at;
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
    const Index n = at.queries.size();
    for (Index i = 0; i < at.heads; ++i) {
      store_transposed(out_.head(at.b(), at.h + i).row_block(at.queries.begin, n), Write::overwrite,
                       p.o + i * n, scratch_.piece(thread, kWideRows));
    }
  }

  // Rows that see nothing, and those that have no softmax.
  void settle_rows(const QueryPanel& p) const {
    p.at.for_each_row([&](Index lane, Index h, Index i) {
      const auto [sum, blind] = problem_.denominator(p.sum[lane], *p.at.sequence, h, i);
      p.sum[lane] = sum;
      for (Index c = 0; blind && c < problem_.dim_v; ++c) panel_row(p.o, c)[lane] = 0;
    });
  }

  // In double: a rounding of LSE is a relative error of every probability in the backward pass.
  HWY_ATTR void write_lse(const QueryPanel& p) const {
    const hn::ScalableTag<double> d;
    HWY_ALIGN double lse[kPanel<T>] = {};
    for (Index lane = 0; lane < p.at.rows(); ++lane) lse[lane] = static_cast<double>(p.sum[lane]);
    for (Index lane = 0; lane < p.at.rows(); lane += kLanes<double>)
      hn::Store(hn::Log(d, hn::Load(d, lse + lane)), d, lse + lane);
    p.at.for_each_row([&](Index lane, Index h, Index i) {
      const double max = static_cast<double>(p.max[lane] * c_) * std::numbers::ln2;
      // Highway's logarithm is that of a finite number.
      const double log = p.sum[lane] > 0 ? lse[lane] : std::log(static_cast<double>(p.sum[lane]));
      lse_[static_cast<std::size_t>(problem_.row(p.at.b(), h, i))] = static_cast<T>(max + log);
    });
  }

  HeadsView<S> out_;
  std::span<T> lse_;
  const AttentionProblem<S>& problem_;
  bool plain_;
  T c_;  // scores are c_ times what panels hold, in units of log 2
  TileSizes tile_;
  Index panels_;       // in a block of queries
  Index folded_;       // heads that share a panel
  Index head_blocks_;  // of so many heads, or fewer
  std::vector<Block> blocks_;
  Index parts_;  // of the keys
  Scratch<T> scratch_;
  memory::Block partial_;  // (tasks, parts): the states of their panels
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
  if (problem.decodes()) return flash_decode(out, lse, problem);
  HWY_DYNAMIC_DISPATCH(forward_f32)(out, lse, problem);
}
template <>
void flash_attention<double>(HeadsView<double> out, std::span<double> lse, const AttentionInputs<double>& in,
                             const AttentionOptions& options) {
  const AttentionProblem<double> problem(in, options);
  if (problem.decodes()) return flash_decode(out, lse, problem);
  HWY_DYNAMIC_DISPATCH(forward_f64)(out, lse, problem);
}
template <>
void flash_attention<bf16>(HeadsView<bf16> out, std::span<float> lse, const AttentionInputs<bf16>& in,
                           const AttentionOptions& options) {
  HWY_DYNAMIC_DISPATCH(forward_bf16)(out, lse, AttentionProblem<bf16>(in, options));
}

}  // namespace tilegrad::kernels
#endif
