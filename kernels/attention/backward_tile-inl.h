// Flash attention, backward: what one tile of queries and keys adds to the gradients. For one SIMD target.
// The essay is in flash_backward-inl.h.
#if defined(TILEGRAD_KERNELS_ATTENTION_BACKWARD_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_ATTENTION_BACKWARD_TILE_INL_H_
#undef TILEGRAD_KERNELS_ATTENTION_BACKWARD_TILE_INL_H_
#else
#define TILEGRAD_KERNELS_ATTENTION_BACKWARD_TILE_INL_H_
#endif

#include "tilegrad/kernels/attention/masked_products.h"
#include "tilegrad/kernels/attention/score_mods-inl.h"
#include "tilegrad/kernels/attention/stages.h"
#include "tilegrad/kernels/attention/workspace.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

// A thread's memory: the panels of a task, those of one tile, and what a tile knows of its rows. The copied
// pieces are for a tile's queries and dO if they do not lie well: see is_copied(). The wide pieces are for what
// is stored in fewer bits than T: a task's keys and values, and rows on their way out.
template <class T>
struct BackwardPieces {
  T *kt, *vt, *dkt, *dvt, *k;
  T *ds, *p, *slope, *keep;
  T *max, *neg_lse, *neg_lse_rest, *delta;
  T *copied_q, *copied_dout, *wide_k, *wide_v, *wide_rows;
  StageMarks stages;
};
template <class T>
Workspace<T, BackwardPieces<T>> backward_workspace(const FlashInputs<T>& in, const FlashOutputs<T>& y,
                                                   const AttentionProblem<T>& problem,
                                                   const BackwardSchedule& schedule) {
  using Pieces = BackwardPieces<T>;
  const Index panels = schedule.panels_per_tile(), keys = schedule.tile().keys,
              queries = schedule.tile().queries, panel = queries * kPanel<T>;
  const Index dim = std::max(problem.dim, problem.dim_v), wide = in.q.is_narrow() ? dim : 0,
              general = problem.no_score_mods() ? 0 : panel;
  return Workspace<T, Pieces>(
      {{&Pieces::kt, panels * problem.dim * kPanel<T>},
       {&Pieces::vt, panels * problem.dim_v * kPanel<T>},
       {&Pieces::dkt, panels * problem.dim * kPanel<T>},
       {&Pieces::dvt, panels * problem.dim_v * kPanel<T>},
       {&Pieces::k, ceil_div(problem.dim, kPanel<T>) * kPanel<T> * keys},
       {&Pieces::ds, panels * panel},
       {&Pieces::p, panel},
       {&Pieces::slope, general},
       {&Pieces::keep, general},
       {&Pieces::max, queries},
       {&Pieces::neg_lse, queries},
       {&Pieces::neg_lse_rest, queries},
       {&Pieces::delta, queries},
       {&Pieces::copied_q, is_copied(in.q) ? queries * copied_stride<T>(dim) : 0},
       {&Pieces::copied_dout, is_copied(y.dout) ? queries * copied_stride<T>(dim) : 0},
       {&Pieces::wide_k, keys * wide},
       {&Pieces::wide_v, keys * wide},
       {&Pieces::wide_rows, kPanel<T> * wide}});
}

// A tile of queries against the task's keys: what it reads, in layouts that suit the products.
template <class T>
struct QueryRows {
  Mat<const T> q, dout;             // (nq, D), (nq, Dv)
  const T *neg_lse, *neg_lse_rest;  // (nq): −LSE in units of log 2, and what its rounding lost
  const T* max;                     // (nq): what is taken away from scores first; null if that is 0 for all
  const T* delta;                   // (nq): times scale if there are no score mods
  bool finite;  // whether q, dout, delta and the task's K and V hold neither NaN nor Inf, or all is seen

  QueryRows part(Range rows) const {
    return {q.row_block(rows.begin, rows.size()),
            dout.row_block(rows.begin, rows.size()),
            neg_lse + rows.begin,
            neg_lse_rest + rows.begin,
            max == nullptr ? nullptr : max + rows.begin,
            delta + rows.begin,
            finite};
  }
};

// Panel number n of several with `dim` rows each.
template <class T>
HWY_INLINE T* key_panel(T* panels, Index n, Index dim) {
  return panels + n * dim * kPanel<T>;
}

template <class T>
class BackwardTile {
 public:
  // `rows` is how many queries a tile has at most.
  BackwardTile(const AttentionProblem<T>& problem, const FlashGrads<T>& grads, Index rows)
      : problem_(problem), grads_(grads), rows_(rows) {}

  Index panel_size() const { return rows_ * kPanel<T>; }

  // P and dS of panel n of the keys, and what they add to dVᵀ and dKᵀ.
  HWY_ATTR void run_panel(const Tile& whole, const QueryRows<T>& rows, Index n,
                          const BackwardPieces<T>& w) const {
    const Index j = whole.keys.begin + n * kPanel<T>;
    Tile tile = whole;
    tile.keys = {j, std::min(j + kPanel<T>, whole.keys.end)};
    T* ds = w.ds + n * panel_size();
    tile.queries = visible_queries(whole, tile.keys);
    const Range seen = {tile.queries.begin - whole.queries.begin, tile.queries.end - whole.queries.begin};
    std::fill(ds, panel_row(ds, seen.begin), T{0});
    std::fill(panel_row(ds, seen.end), panel_row(ds, whole.queries.size()), T{0});
    if (seen.empty()) return;
    ds = panel_row(ds, seen.begin);
    const QueryRows<T> r = rows.part(seen);
    const T *kt = key_panel(w.kt, n, r.q.cols), *vt = key_panel(w.vt, n, r.dout.cols);
    if (problem_.no_score_mods()) {
      plain_panel(w.p, ds, r, kt, vt, tile, w);
    } else {
      general_panel(w.p, ds, r, kt, vt, tile, w);
    }
    T *dkt = key_panel(w.dkt, n, r.q.cols), *dvt = key_panel(w.dvt, n, r.dout.cols);
    if (!rows.finite) {
      add_visible_rows(dvt, w.p, r.dout, tile);
      w.stages.end(Stage::dv);
      add_visible_rows(dkt, ds, r.q, tile);
      return w.stages.end(Stage::dk);
    }
    const LaneSplit halves = tile.template queries_by_half<T>();
    if (grads_.dv) multiply_add(dvt, r.dout.cols, halves, ColMajor<T>{r.dout.data, r.dout.stride}, w.p);
    w.stages.end(Stage::dv);
    if (grads_.dk) multiply_add(dkt, r.q.cols, halves, ColMajor<T>{r.q.data, r.q.stride}, ds);
    w.stages.end(Stage::dk);
  }

  // dQ (+)= dS' K, for the panels that run_panel() has left in w.ds. The packed columns of K are in w.k.
  HWY_ATTR void add_dq(Mat<T> dq, const Tile& tile, bool finite, Mat<const T> keys, bool overwrite,
                       const BackwardPieces<T>& w) const {
    const T* ds = w.ds;
    if (!finite) {
      for (Index i = 0; overwrite && i < dq.rows; ++i) std::fill_n(dq.row(i), dq.cols, T{0});
      return add_visible_dq(dq, ds, keys, tile);
    }
    for (Index c = 0; c < dq.cols; c += kPanel<T>) {
      const T* k = w.k + c * tile.keys.size();
      const Index width = std::min(kPanel<T>, dq.cols - c);
      for_row_blocks(dq.rows, [&](Index m, auto size) HWY_ATTR {
        constexpr Index kRows = size();
        Accumulators<T, kRows> sum;
        sum.clear();
        const Range all =
            tile.sequence->keys_of(Range{tile.queries.begin + m, tile.queries.begin + m + kRows});
        const Range seen = {tile.local(all.begin), tile.local(all.end)};
        for (Index j = seen.begin, n; j < seen.end; j += n) {  // panel by panel
          const Index panel = j / kPanel<T>, first = j % kPanel<T>;
          n = std::min(kPanel<T> - first, seen.end - j);
          sum.add_product(RowMajor<T>{ds + panel * panel_size() + m * kPanel<T> + first, kPanel<T>},
                          k + j * kPanel<T>, n);
        }
        HWY_UNROLL(16)
        for (Index i = 0; i < kRows; ++i)
          store_part_of_row(dq.row(m + i) + c, width, overwrite, sum.v[i][0], sum.v[i][1]);
      });
    }
  }

 private:
  // The queries of a tile that see some of the keys; an empty range inside the tile if none does.
  static Range visible_queries(const Tile& whole, Range keys) {
    const Range all = whole.sequence->queries_of(keys);
    const Index begin = std::clamp(all.begin, whole.queries.begin, whole.queries.end);
    return {begin, std::clamp(all.end, begin, whole.queries.end)};
  }

  // S or dP, as it is.
  void store_product_of(T* to, const LaneSplit& halves, Mat<const T> a, const T* b) const {
    store_in_parts(to, halves, a.cols, score_part(problem_), RowMajor<T>{a.data, a.stride}, b);
  }

  // P = exp2(c Q Kᵀ − LSE), dS' = P ⊙ (scale dO Vᵀ − scale delta), in the registers of the products.
  HWY_ATTR void plain_panel(T* p, T* ds, const QueryRows<T>& r, const T* kt, const T* vt, const Tile& tile,
                            const BackwardPieces<T>& w) const {
    const Tag<T> d;
    const auto scale = hn::Set(d, static_cast<T>(problem_.scale)), c = hn::Set(d, to_log2(problem_));
    const LaneSplit halves = tile.template queries_by_half<T>();
    if (HWY_LIKELY(r.max == nullptr)) {
      multiply_in_parts<T>(
          halves, r.q.cols, score_part(problem_), RowMajor<T>{r.q.data, r.q.stride}, kt, p,
          [&](Index i, Vec<T> x0, Vec<T> x1) HWY_ATTR {
            const auto neg_lse = hn::Set(d, r.neg_lse[i]), rest = hn::Set(d, r.neg_lse_rest[i]);
            store_row(p, i, exp2_of_sum<T>(x0, c, neg_lse, rest), exp2_of_sum<T>(x1, c, neg_lse, rest));
          });
    } else {
      store_product_of(p, halves, r.q, kt);
      probabilities(p, r);
    }
    const bool cut = tile.is_partial();
    const KeyLanes<T> scores = {problem_, nullptr, nullptr};
    if (cut) scores.mask_out(p, tile);
    w.stages.end(Stage::probabilities);
    multiply_in_parts<T>(halves, r.dout.cols, score_part(problem_), RowMajor<T>{r.dout.data, r.dout.stride},
                         vt, ds, [&](Index i, Vec<T> x0, Vec<T> x1) HWY_ATTR {
                           const auto delta = hn::Set(d, r.delta[i]);
                           const T* row = panel_row(p, i);
                           store_row(ds, i, hn::Mul(hn::MulSub(x0, scale, delta), hn::Load(d, row)),
                                     hn::Mul(hn::MulSub(x1, scale, delta), hn::Load(d, row + kLanes<T>)));
                         });
    if (cut && !r.finite) scores.mask_out(ds, tile);  // else P = 0 has hidden it
    w.stages.end(Stage::dp_and_ds);
  }

  // The same with all options, step by step, and P ⊙ M in place of P.
  HWY_ATTR void general_panel(T* p, T* ds, const QueryRows<T>& r, const T* kt, const T* vt, const Tile& tile,
                              const BackwardPieces<T>& w) const {
    const KeyLanes<T> scores = {problem_, w.slope, w.keep};
    const LaneSplit halves = tile.template queries_by_half<T>();
    store_product_of(p, halves, r.q, kt);
    scores.apply(p, tile);
    probabilities(p, r);
    scores.mask_out(p, tile);
    w.stages.end(Stage::probabilities);
    store_product_of(ds, halves, r.dout, vt);
    if (problem_.options.dropout > 0) scores.draw_keep(tile);
    scores.gradients(ds, p, r.delta, tile);
    scores.mask_out(ds, tile);
    if (!r.finite && problem_.bias) clear_fully_masked(ds, tile);
    if (grads_.dbias) add_dbias(ds, tile);
    scores.through_scale(ds, tile);
    scores.mask_out(ds, tile);
    if (problem_.options.dropout > 0) scores.drop(p, tile);
    w.stages.end(Stage::dp_and_ds);
  }

  // P = exp(S − LSE) in place of S.
  HWY_ATTR void probabilities(T* p, const QueryRows<T>& r) const {
    const Tag<T> d;
    const auto c = hn::Set(d, to_log2(problem_));
    if (r.max != nullptr) {
      for_each_vector(p, {0, r.q.rows},
                      [&](Index i, Index, Vec<T> x) HWY_ATTR { return hn::Sub(x, hn::Set(d, r.max[i])); });
    }
    for_each_vector(p, {0, r.q.rows}, [&](Index i, Index, Vec<T> x) HWY_ATTR {
      return exp2_of_sum<T>(x, c, hn::Set(d, r.neg_lse[i]), hn::Set(d, r.neg_lse_rest[i]));
    });
  }

  // A query that sees nothing gives no gradient, whatever is in the keys that a bias hides from it.
  void clear_fully_masked(T* ds, const Tile& tile) const {
    tile.for_each_row([&](Index row, Index h, Index i) {
      if (problem_.fully_masked(*tile.sequence, h, i)) std::fill_n(panel_row(ds, row), kPanel<T>, T{0});
    });
  }

  void add_dbias(const T* ds, const Tile& tile) const {
    for (Index i = 0; i < tile.queries.size(); ++i) {
      T* to = grads_.dbias.to.row(tile.b(), tile.h, tile.queries.begin + i) + tile.keys.begin;
      for (Index j = 0; j < tile.keys.size(); ++j) to[j] += ds[i * kPanel<T> + j];
    }
  }

  // The same products where a NaN or an Inf must not reach what does not see it: masked_products.h.
  // dᵀ (dim, panel) += xᵀ w for w (queries, panel).
  void add_visible_rows(T* dt, const T* w, Mat<const T> x, const Tile& tile) const {
    add_visible(
        problem_, {tile.sequence, tile.h, tile.queries, tile.keys}, x.cols,
        [&](Index, Index j, Index c) -> T& { return dt[c * kPanel<T> + j]; },
        [&](Index i, Index j) { return w[i * kPanel<T> + j]; },
        [&](Index i, Index, Index c) { return x(i, c); });
  }
  void add_visible_dq(Mat<T> dq, const T* ds, Mat<const T> k, const Tile& tile) const {
    add_visible(
        problem_, {tile.sequence, tile.h, tile.queries, tile.keys}, dq.cols,
        [&](Index i, Index, Index c) -> T& { return dq(i, c); },
        [&](Index i, Index j) { return ds[j / kPanel<T> * panel_size() + i * kPanel<T> + j % kPanel<T>]; },
        [&](Index, Index j, Index c) { return k(j, c); });
  }

  HWY_ATTR static void store_part_of_row(T* to, Index width, bool overwrite, Vec<T> x0, Vec<T> x1) {
    const Tag<T> d;
    if (width == kPanel<T>) {
      hn::StoreU(overwrite ? x0 : hn::Add(hn::LoadU(d, to), x0), d, to);
      hn::StoreU(overwrite ? x1 : hn::Add(hn::LoadU(d, to + kLanes<T>), x1), d, to + kLanes<T>);
      return;
    }
    HWY_ALIGN T row[kPanel<T>];
    store_row(row, 0, x0, x1);
    for (Index c = 0; c < width; ++c) to[c] = overwrite ? row[c] : to[c] + row[c];
  }

  const AttentionProblem<T>& problem_;
  const FlashGrads<T>& grads_;
  Index rows_;
};

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
