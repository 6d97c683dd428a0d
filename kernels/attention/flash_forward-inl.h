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
// multiplication and addition in one instruction. Only if c m is so large that its rounding would show, m is
// subtracted from s first: see online_softmax-inl.h.
//
// The lanes of a vector are queries. A task has a block of queries, in panels of two vectors; Sᵀ, Pᵀ and Oᵀ
// are panels, and so is Qᵀ, transposed once. Then m, l and α are vectors and nothing sums across lanes:
//   Sᵀ = K Qᵀ,   Pᵀ = exp2(c Sᵀ − c m),   Oᵀ = α Oᵀ + Vᵀ Pᵀ.
// K and V are read element by element, from where they lie or from copies of a tile's rows. The result depends on shapes and options
// alone, not on threads: a task does all of its queries' work, in a fixed order.
//
// With fewer queries than lanes the query heads that share K and V lie side by side in the lanes of one panel
// ("pack GQA"), and if that leaves too few tasks, the keys are split ("split-KV"). Each split has its own m,
// l and O, which are merged at the end, in the order of the splits, as if the keys of one split were a single
// block.
//
// Inputs that are stored in bf16 or f16 are widened to float tile by tile, just before the products.
#if defined(TILEGRAD_KERNELS_ATTENTION_FLASH_FORWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_ATTENTION_FLASH_FORWARD_INL_H_
#undef TILEGRAD_KERNELS_ATTENTION_FLASH_FORWARD_INL_H_
#else
#define TILEGRAD_KERNELS_ATTENTION_FLASH_FORWARD_INL_H_
#endif

#include "tilegrad/kernels/attention/flash.h"
#include "tilegrad/kernels/attention/forward_tile-inl.h"
#include "tilegrad/kernels/attention/workspace.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

template <class T>
class FlashForward {
 public:
  FlashForward(const StoredHeads<T>& out, std::span<T> lse, const FlashInputs<T>& in,
               const AttentionProblem<T>& problem)
      : out_(out),
        lse_(lse),
        in_(in),
        problem_(problem),
        c_(to_log2(problem)),
        tiles_(problem),
        schedule_(problem, kMicroKernel<T>) {}

  void run() const {
    const Index splits = schedule_.splits(), tasks = schedule_.tasks();
    const Workspace<T, Pieces> workspace = make_workspace();
    if (splits == 1) {
      workspace.run(tasks, [&](Index n, const Pieces& w) {
        const Task task = schedule_.task(n);
        attend(task, 0, w.states, w);
        for_each_panel(task, w.states, w, [&](const QueryPanel& p) { finish(p, w); });
        w.stages.end(Stage::store);
      });
      return;
    }
    // The states of all panels, for each split.
    const memory::Block block(tasks * splits * states_size() * Index{sizeof(T)}, memory::Category::workspace);
    T* states = reinterpret_cast<T*>(block.data());
    workspace.run(tasks * splits, [&](Index n, const Pieces& w) {
      attend(schedule_.task(n / splits), n % splits, states + n * states_size(), w);
    });
    workspace.run(tasks, [&](Index n, const Pieces& w) {
      for_each_panel(schedule_.task(n), states + n * splits * states_size(), w, [&](const QueryPanel& p) {
        for (Index split = 1; split < splits; ++split) tiles_.merge(p, split * states_size());
        finish(p, w);
      });
      w.stages.end(Stage::store);
    });
  }

 private:
  using Task = ForwardSchedule::Task;
  using Pieces = ForwardPieces<T>;
  using QueryPanel = kernels::HWY_NAMESPACE::QueryPanel<T>;

  Workspace<T, Pieces> make_workspace() const {
    const Index keys = schedule_.tile().keys, dim = problem_.dim, dim_v = problem_.dim_v;
    const auto copied = [&](const auto& x, Index cols) {
      return is_copied(x) ? keys * copied_stride<T>(cols) : 0;
    };
    return Workspace<T, Pieces>(
        {{&Pieces::q, schedule_.panels_per_tile() * dim * kPanel<T>},
         {&Pieces::states, schedule_.splits() > 1 ? 0 : states_size()},
         {&Pieces::scores, keys * kPanel<T>},
         {&Pieces::aux, problem_.no_score_mods() ? 0 : keys * kPanel<T>},
         {&Pieces::row, keys},
         {&Pieces::copied_k, copied(in_.k, dim)},
         {&Pieces::copied_v, copied(in_.v, dim_v)},
         {&Pieces::wide_rows, in_.q.is_narrow() ? kPanel<T> * std::max(dim, dim_v) : 0}});
  }
  // m, l and O of one panel, and of all panels of a task.
  Index state_size() const { return (problem_.dim_v + 2) * kPanel<T>; }
  Index states_size() const { return schedule_.panels_per_tile() * state_size(); }

  // Processes one split of the keys for the rows of a task.
  HWY_ATTR void attend(const Task& task, Index split, T* states, const Pieces& w) const {
    for_each_panel(task, states, w, [&](const QueryPanel& p) HWY_ATTR { start(p, split == 0, w); });
    w.stages.end(Stage::prepare);
    const Range all = split_of(task.sequence->keys_of(task.queries), split, schedule_.splits());
    const Index b = task.sequence->b;
    for (Index j = all.begin; j < all.end; j += schedule_.tile().keys) {
      const Range tile_keys = {j, std::min(j + schedule_.tile().keys, all.end)};
      const auto keys = near_rows(in_.k, b, task.hkv, tile_keys, w.copied_k);
      const auto values = near_rows(in_.v, b, task.hkv, tile_keys, w.copied_v);
      w.stages.end(Stage::prepare);
      for_each_panel(task, states, w, [&](const QueryPanel& p) HWY_ATTR {
        Tile tile = p.tile;
        tile.keys = {std::max(tile_keys.begin, p.tile.keys.begin), std::min(tile_keys.end, p.tile.keys.end)};
        if (tile.keys.empty()) return;
        const Index first = tile.keys.begin - j, n = tile.keys.size();
        tiles_.add_keys(p, tile, keys.row_block(first, n), values.row_block(first, n), w);
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

  HWY_ATTR void start(const QueryPanel& p, bool first, const Pieces& w) const {
    pack_queries(p, w);
    std::fill_n(p.o, problem_.dim_v * kPanel<T>, T{0});
    std::fill_n(p.max, kPanel<T>, -std::numeric_limits<T>::infinity());
    std::fill_n(p.sum, kPanel<T>, T{0});
    p.tile.for_each_row(
        [&](Index lane, Index h, Index) { start_row(p.max[lane], p.sum[lane], problem_, c_, h, first); });
  }

  HWY_ATTR void pack_queries(const QueryPanel& p, const Pieces& w) const {
    const Index n = p.tile.queries.size();
    if (p.tile.rows() < kPanel<T>) std::fill_n(p.q, problem_.dim * kPanel<T>, T{0});
    for (Index i = 0; i < p.tile.heads; ++i) {
      const auto q = widened(StoredRows(in_.q, p.tile.b(), p.tile.h + i, p.tile.queries), w.wide_rows);
      transpose(p.q + i * n, kPanel<T>, q.data, q.stride, n, q.cols);
    }
  }

  // O = Oᵀᵀ / l, LSE = m + log l.
  HWY_ATTR void finish(const QueryPanel& p, const Pieces& w) const {
    const Tag<T> d;
    const Tile& tile = p.tile;
    RowEnds<T>(problem_, c_).finish(tile, p.max, p.sum, lse_, [&](Index lane) {
      for (Index c = 0; c < problem_.dim_v; ++c) panel_row(p.o, c)[lane] = 0;
    });
    const auto inverse0 = inverse_of<T>(hn::Load(d, p.sum)),
               inverse1 = inverse_of<T>(hn::Load(d, p.sum + kLanes<T>));
    for_each_vector(p.o, {0, problem_.dim_v}, [&](Index, Index lane, Vec<T> x) HWY_ATTR {
      return hn::Mul(x, lane == 0 ? inverse0 : inverse1);
    });
    const Index n = tile.queries.size();
    for (Index i = 0; i < tile.heads; ++i) {
      store_transposed(StoredRows(out_, tile.b(), tile.h + i, tile.queries), Write::overwrite, p.o + i * n,
                       w.wide_rows);
    }
  }

  const StoredHeads<T>& out_;
  std::span<T> lse_;
  const FlashInputs<T>& in_;
  const AttentionProblem<T>& problem_;
  T c_;  // scores are c_ times what panels hold, in units of log 2
  ForwardTile<T> tiles_;
  ForwardSchedule schedule_;
};

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
