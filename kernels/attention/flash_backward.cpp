// Flash attention, backward (T. Dao et al., "FlashAttention", 2022; T. Dao, "FlashAttention-2", 2023).
//
// Forward was, for one head, with M the dropout factors (all ones without dropout), f the softcap, B bias and
// ALiBi:
//   S = f(scale Q Kᵀ) + B,   P = exp(S − LSE),   O = (P ⊙ M) V.
// Given dO, and dLSE if LSE itself is used:
//   O = (P ⊙ M) V      gives   dV = (P ⊙ M)ᵀ dO   and   dP = (dO Vᵀ) ⊙ M.
//   p = softmax(s)     has     ∂p_j/∂s_k = p_j ([j = k] − p_k), and ∂lse/∂s_j = p_j, for each row, so
//                              ds_j = p_j (dp_j − Σ_k p_k dp_k + dlse).
// The sum runs over the whole row, which no tile sees. But it is known before any tile is:
//   Σ_k p_k dp_k = Σ_k p_k m_k ⟨do, v_k⟩ = ⟨do, Σ_k p_k m_k v_k⟩ = ⟨do, o⟩,   delta := ⟨do, o⟩ − dlse.
// So every tile stands alone. It recomputes S and P, because that is cheaper than to keep them:
//   P = exp(S − LSE),   dP = (dO Vᵀ) ⊙ M,   dS = P ⊙ (dP − delta),   dB = dS,
//   S = f(scale Q Kᵀ) + B   gives   dQ += dS' K   and   dK += dS'ᵀ Q   with dS' = dS ⊙ f' · scale.
// A sink is one more logit without a value (dp = 0), of probability p = exp(sink − lse):
//   dsink = −Σ_i p_i delta_i.
//
// The lanes of a vector are keys. A task has a block of keys, and walks over all queries that see any of
// them, in all heads of the group. Kᵀ, Vᵀ, dKᵀ, dVᵀ are panels of two vectors of keys, P and dS as well:
//   S = Q (Kᵀ),   dP = dO (Vᵀ),   dVᵀ += dOᵀ (P),   dKᵀ += Qᵀ (dS),   dQ += dS (K)
// where the factor in brackets is read by vectors and the other element by element from its natural layout.
//
// dK and dV belong to the task. dQ is summed over tasks, and the sum must have a fixed order to be the same for every
// number of threads: each tile of dQ counts the tiles of keys that have added to it, and the next one waits for its
// ticket. Tasks are handed out in the order of these tickets, so whoever is waited for is running or has finished:
// nothing deadlocks, and two tasks of a head soon run one tile apart. The gradient of a bias that is broadcast over
// heads or batch is summed in the same manner. See schedule.h.
#include "tilegrad/kernels/attention/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/attention/flash_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/attention/grads.h"
#include "tilegrad/kernels/attention/score_mods-inl.h"
#include "tilegrad/kernels/attention/workspace.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

template <class Stored>
class FlashBackward {
  using T = Compute<Stored>;
  static constexpr bool kWidens = !std::is_same_v<Stored, T>;

 public:
  FlashBackward(const AttentionGrads<Stored>& grads, HeadsView<const Stored> dout,
                HeadsView<const Stored> out, std::span<const T> lse, std::span<const T> dlse,
                const AttentionProblem<Stored>& problem)
      : grads_(grads),
        dout_(dout),
        out_(out),
        lse_(lse),
        dlse_(dlse),
        problem_(problem),
        no_score_mods_(problem.no_score_mods()),
        schedule_(problem, kPanel<T>, bias_grad(grads), threads()),
        dq_adds_(schedule_.dq_tiles()),
        dbias_adds_(schedule_.dbias_tiles()),
        delta_block_(problem.batch * problem.heads * problem.tq * Index{sizeof(T)},
                     memory::Category::workspace),
        delta_(reinterpret_cast<T*>(delta_block_.data())),
        dq_block_(kWidens && grads.dq
                      ? problem.batch * problem.tq * problem.heads * problem.dim * Index{sizeof(T)}
                      : 0,
                  memory::Category::workspace),
        dq_(dq_sums()),
        write_q_(kWidens ? Write::overwrite : grads.dq.write),
        workspace_(pieces(problem, schedule_)) {}

  void run() {
    compute_delta();
    if (grads_.dsinks) compute_dsinks();
    clear_unseen();
    workspace_.run(std::ssize(schedule_.tasks()), [&](Index n, const Pieces& w) {
      const BackwardSchedule::Task& task = schedule_.tasks()[n];
      run_key_tile(schedule_.key_tiles()[task.key_tile], task.hkv, w);
    });
    if constexpr (kWidens) round_dq();
  }

 private:
  // A thread's memory: the panels of a task, those of one tile, and what a tile knows of its rows. The wide pieces
  // are for what is stored in fewer bits than T: a task's keys and values, a tile's queries and dO, and rows on
  // their way out.
  struct Pieces {
    T *kt, *vt, *dkt, *dvt, *k;
    T *ds, *p, *slope, *keep;
    T *neg_lse, *neg_lse_rest, *delta;
    T *wide_k, *wide_v, *wide_q, *wide_dout, *wide_rows;
  };
  using TaskWorkspace = Workspace<T, Pieces>;

  static TaskWorkspace pieces(const AttentionProblem<Stored>& problem, const BackwardSchedule& schedule) {
    const Index panels = schedule.panels_per_tile(), keys = schedule.tile().keys,
                queries = schedule.tile().queries, panel = queries * kPanel<T>;
    const Index wide = kWidens ? std::max(problem.dim, problem.dim_v) : 0,
                general = problem.no_score_mods() ? 0 : panel;
    return TaskWorkspace({{&Pieces::kt, panels * problem.dim * kPanel<T>},
                          {&Pieces::vt, panels * problem.dim_v * kPanel<T>},
                          {&Pieces::dkt, panels * problem.dim * kPanel<T>},
                          {&Pieces::dvt, panels * problem.dim_v * kPanel<T>},
                          {&Pieces::k, ceil_div(problem.dim, kPanel<T>) * kPanel<T> * keys},
                          {&Pieces::ds, panels * panel},
                          {&Pieces::p, panel},
                          {&Pieces::slope, general},
                          {&Pieces::keep, general},
                          {&Pieces::neg_lse, queries},
                          {&Pieces::neg_lse_rest, queries},
                          {&Pieces::delta, queries},
                          {&Pieces::wide_k, keys * wide},
                          {&Pieces::wide_v, keys * wide},
                          {&Pieces::wide_q, queries * wide},
                          {&Pieces::wide_dout, queries * wide},
                          {&Pieces::wide_rows, kPanel<T> * wide}});
  }

  // A task's keys and values.
  struct Keys {
    Mat<const T> k, v;  // (nk, D), (nk, Dv)
    bool finite;        // whether they hold neither NaN nor Inf
  };

  // A tile of queries against the task's keys: what it reads, in layouts that are good to read.
  struct Rows {
    Mat<const T> q, dout;             // (nq, D), (nq, Dv)
    const T *neg_lse, *neg_lse_rest;  // (nq): −LSE in units of log 2, and what its rounding lost
    const T* delta;                   // (nq): times scale if plain
    bool finite;  // whether q, dout, delta and the task's K and V hold neither NaN nor Inf, or all is seen
  };

  static BackwardSchedule::BiasGrad bias_grad(const AttentionGrads<Stored>& grads) {
    return {.wanted = static_cast<bool>(grads.dbias),
            .over_batch = grads.dbias.to.stride_b == 0,
            .over_heads = grads.dbias.to.stride_h == 0};
  }
  Index panel_size() const { return schedule_.tile().queries * kPanel<T>; }

  // dQ is summed over many tasks: in place, or apart if a rounding in every step would lose too much.
  HeadsView<T> dq_sums() const {
    if constexpr (!kWidens) {
      return grads_.dq.to;
    } else {
      return {reinterpret_cast<T*>(dq_block_.data()), problem_.batch, problem_.tq, problem_.heads,
              problem_.dim};
    }
  }
  bool needs_dq() const { return static_cast<bool>(grads_.dq); }
  void round_dq() const {
    if (!needs_dq()) return;
    parallel_tasks(problem_.batch * problem_.heads, [&](Index n, int) HWY_ATTR {
      const Index b = n / problem_.heads, h = n % problem_.heads;
      store_narrowed(grads_.dq.to.head(b, h), grads_.dq.write, dq_.head(b, h));
    });
  }

  // delta = rowsum(dO ⊙ O) − dLSE; 0 for rows that saw nothing.
  void compute_delta() {
    const Index tiles = std::ssize(schedule_.query_tiles());
    workspace_.run(tiles * problem_.heads, [&](Index n, const Pieces& w) HWY_ATTR {
      const SequenceTile& tile = schedule_.query_tiles()[n % tiles];
      const Sequence& s = problem_.sequences[tile.sequence];
      const Index h = n / tiles, i0 = tile.rows.begin;
      const auto dout = widened(dout_.head(s.b, h).row_block(i0, tile.rows.size()), w.wide_dout);
      const auto out = widened(out_.head(s.b, h).row_block(i0, tile.rows.size()), w.wide_q);
      for (Index i = 0; i < tile.rows.size(); ++i) {
        const Index row = problem_.row(s.b, h, i0 + i);
        T sum = dot(out.cols, dout.row(i), out.row(i));
        // A row that sees nothing but a sink has o = 0, whatever do is.
        if (!std::isfinite(sum) && problem_.fully_masked(s, h, i0 + i)) sum = 0;
        if (!dlse_.empty()) sum -= dlse_[row];
        delta_[row] = lse_[row] == -std::numeric_limits<T>::infinity() ? T{0} : sum;
      }
    });
  }

  // dsink = −Σ_i exp(sink − lse_i) delta_i, over the batch as well.
  void compute_dsinks() {
    parallel_tasks(problem_.heads, [&](Index h, int) {
      const auto sink = static_cast<double>(problem_.in.sinks[h]);
      double sum = 0;
      for (Index b = 0; b < problem_.batch; ++b) {
        for (Index row = problem_.row(b, h, 0); row < problem_.row(b, h, problem_.tq); ++row) {
          if (delta_[row] == 0) continue;
          sum -= std::exp(sink - static_cast<double>(lse_[row])) * static_cast<double>(delta_[row]);
        }
      }
      store(grads_.dsinks.to[h], grads_.dsinks.write, static_cast<T>(sum));
    });
  }

  // What no task writes: dQ of tiles of queries that see nothing, dK and dV of padding, and dbias, to which
  // tasks add.
  void clear_unseen() const {
    parallel_tasks(std::ssize(schedule_.query_tiles()), [&](Index n, int) {
      const SequenceTile& tile = schedule_.query_tiles()[n];
      if (!needs_dq() || write_q_ == Write::accumulate || !schedule_.unseen(tile)) return;
      for (Index h = 0; h < problem_.heads; ++h)
        zero(dq_.head(problem_.sequences[tile.sequence].b, h), tile.rows);
    });
    for (const Sequence& s : problem_.sequences) {
      if (problem_.in.k_lengths.empty()) break;
      for (Index h = 0; h < problem_.kv_heads; ++h) {
        if (grads_.dk && grads_.dk.write == Write::overwrite)
          zero(grads_.dk.to.head(s.b, h), {s.tk, problem_.tk});
        if (grads_.dv && grads_.dv.write == Write::overwrite)
          zero(grads_.dv.to.head(s.b, h), {s.tk, problem_.tk});
      }
    }
    clear_dbias(grads_, problem_);
  }
  template <class U>
  static void zero(Mat<U> x, Range rows) {
    for (Index r = rows.begin; r < rows.end; ++r) std::fill_n(x.row(r), x.cols, U{0});
  }

  HWY_ATTR void run_key_tile(const SequenceTile& key_tile, Index hkv, const Pieces& w) {
    const Sequence& s = problem_.sequences[key_tile.sequence];
    const auto rows = [&](const HeadsView<const Stored>& x) {
      return x.head(s.b, hkv).row_block(key_tile.rows.begin, key_tile.rows.size());
    };
    const auto k = widened(rows(problem_.in.k), w.wide_k);
    const auto v = widened(rows(problem_.in.v), w.wide_v);
    for (Index j = 0, n = 0; j < k.rows; j += kPanel<T>, ++n) {
      const Index nk = std::min(kPanel<T>, k.rows - j);
      pack_transposed(key_panel(w.kt, n, k.cols), k.row_block(j, nk));
      pack_transposed(key_panel(w.vt, n, v.cols), v.row_block(j, nk));
    }
    if (needs_dq()) pack_columns(w.k, k);
    std::fill_n(w.dkt, schedule_.panels_per_tile() * k.cols * kPanel<T>, T{0});
    std::fill_n(w.dvt, schedule_.panels_per_tile() * v.cols * kPanel<T>, T{0});
    const Keys keys = {k, v, all_finite(k) && all_finite(v)};

    const Range query_tiles = schedule_.query_tiles_of(key_tile);
    const auto run = [&](Index h, Index n) HWY_ATTR {
      run_tile({&s, h, schedule_.query_tiles()[n].rows, key_tile.rows}, key_tile, n, keys, w);
    };
    const Range heads = {hkv * problem_.group_size(), (hkv + 1) * problem_.group_size()};
    if (grads_.dbias) {
      for (Index h = heads.begin; h < heads.end; ++h) {
        const Ticket ticket = schedule_.dbias_ticket(key_tile, h);
        dbias_adds_.wait(ticket);
        for (Index n = query_tiles.begin; n < query_tiles.end; ++n) run(h, n);
        dbias_adds_.done(ticket);
      }
    } else {  // query by query, because the heads of a query are next to each other in memory
      for (Index n = query_tiles.begin; n < query_tiles.end; ++n) {
        for (Index h = heads.begin; h < heads.end; ++h) run(h, n);
      }
    }
    write_out(grads_.dk, key_tile, hkv, w.dkt, w);
    write_out(grads_.dv, key_tile, hkv, w.dvt, w);
  }

  // Panel number n of several with `dim` rows each.
  static T* key_panel(T* panels, Index n, Index dim) { return panels + n * dim * kPanel<T>; }

  void write_out(const Grad<HeadsView<Stored>>& grad, const SequenceTile& tile, Index hkv, T* panels,
                 const Pieces& w) const {
    if (!grad) return;
    const Mat<Stored> head = grad.to.head(problem_.sequences[tile.sequence].b, hkv);
    for (Index j = tile.rows.begin, n = 0; j < tile.rows.end; j += kPanel<T>, ++n) {
      const Mat<Stored> to = head.row_block(j, std::min(kPanel<T>, tile.rows.end - j));
      store_transposed(to, grad.write, key_panel(panels, n, grad.to.dim), w.wide_rows);
    }
  }

  HWY_ATTR Rows rows_of(const Tile& tile, bool keys_finite, const Pieces& w) const {
    const auto rows = [&](const HeadsView<const Stored>& x) {
      return x.head(tile.b(), tile.h).row_block(tile.queries.begin, tile.queries.size());
    };
    const auto q = widened(rows(problem_.in.q), w.wide_q);
    const auto dout = widened(rows(dout_), w.wide_dout);
    T *neg_lse = w.neg_lse, *rest = w.neg_lse_rest;
    T* delta = w.delta;
    bool finite = true;
    const T factor = no_score_mods_ ? static_cast<T>(problem_.scale) : T{1};
    for (Index i = 0; i < q.rows; ++i) {
      const Index row = problem_.row(tile.b(), tile.h, tile.queries.begin + i);
      // A rounding here would be a relative error of all probabilities of the row.
      const double lse = static_cast<double>(lse_[row]) * std::numbers::log2e;
      // exp2(S − ∞) = 0 in a row that saw nothing, while S + ∞ would not be.
      const double neg = std::isinf(lse) ? -std::abs(lse) : -lse;
      neg_lse[i] = static_cast<T>(neg);
      rest[i] = std::isinf(lse) ? T{0} : static_cast<T>(neg - static_cast<double>(neg_lse[i]));
      delta[i] = delta_[row] * factor;
      // Only the sink of a row that sees nothing else learns of a NaN in its dlse.
      if (!std::isfinite(delta[i]) && problem_.fully_masked(*tile.sequence, tile.h, tile.queries.begin + i))
        delta[i] = 0;
      finite &= std::abs(delta[i]) <= std::numeric_limits<T>::max();
    }
    const bool has_masked_pairs = tile.is_partial() || problem_.in.mask;
    return {q,    dout,  neg_lse,
            rest, delta, !has_masked_pairs || (finite && keys_finite && all_finite(q) && all_finite(dout))};
  }

  HWY_ATTR void run_tile(const Tile& tile, const SequenceTile& key_tile, Index query_tile, const Keys& keys,
                         const Pieces& w) {
    const Rows rows = rows_of(tile, keys.finite, w);
    for (Index n = 0; n * kPanel<T> < tile.keys.size(); ++n) run_panel(tile, rows, n, w);
    if (!needs_dq()) return;
    const Ticket ticket = schedule_.dq_ticket(key_tile, query_tile, tile.h);
    dq_adds_.wait(ticket);
    add_dq(tile, rows, keys.k, ticket.number == 0 && write_q_ == Write::overwrite, w);
    dq_adds_.done(ticket);
  }

  // P and dS of one panel of keys, and what they add to dVᵀ and dKᵀ.
  HWY_ATTR void run_panel(const Tile& whole, const Rows& rows, Index n, const Pieces& w) const {
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
    T* p = w.p;
    const Rows r = {rows.q.row_block(seen.begin, seen.size()),
                    rows.dout.row_block(seen.begin, seen.size()),
                    rows.neg_lse + seen.begin,
                    rows.neg_lse_rest + seen.begin,
                    rows.delta + seen.begin,
                    rows.finite};
    const T *kt = key_panel(w.kt, n, r.q.cols), *vt = key_panel(w.vt, n, r.dout.cols);
    if (no_score_mods_) {
      plain_panel(p, ds, r, kt, vt, tile);
    } else {
      general_panel(p, ds, r, kt, vt, tile, w);
    }
    T *dkt = key_panel(w.dkt, n, r.q.cols), *dvt = key_panel(w.dvt, n, r.dout.cols);
    if (!rows.finite) {
      add_visible(dvt, p, r.dout, tile);
      add_visible(dkt, ds, r.q, tile);
      return;
    }
    const LaneSplit halves = tile.template queries_by_half<T>();
    if (grads_.dv) multiply_add(dvt, r.dout.cols, halves, ColMajor<T>{r.dout.data, r.dout.stride}, p);
    if (grads_.dk) multiply_add(dkt, r.q.cols, halves, ColMajor<T>{r.q.data, r.q.stride}, ds);
  }

  // The queries of a tile that see some of the keys; an empty range inside the tile if none does.
  static Range visible_queries(const Tile& whole, Range keys) {
    const Range all = whole.sequence->queries_of(keys);
    const Index begin = std::clamp(all.begin, whole.queries.begin, whole.queries.end);
    return {begin, std::clamp(all.end, begin, whole.queries.end)};
  }

  // P = exp2(c Q Kᵀ − LSE), dS' = P ⊙ (scale dO Vᵀ − scale delta), in the registers of the products.
  HWY_ATTR void plain_panel(T* p, T* ds, const Rows& r, const T* kt, const T* vt, const Tile& tile) const {
    const Tag<T> d;
    const auto scale = hn::Set(d, static_cast<T>(problem_.scale)), c = hn::Set(d, to_log2(problem_));
    const LaneSplit halves = tile.template queries_by_half<T>();
    multiply_in_parts<T>(
        halves, r.q.cols, score_part(problem_), RowMajor<T>{r.q.data, r.q.stride}, kt, p,
        [&](Index i, Vec<T> x0, Vec<T> x1) HWY_ATTR {
          const auto neg_lse = hn::Set(d, r.neg_lse[i]), rest = hn::Set(d, r.neg_lse_rest[i]);
          store_row(p, i, exp2_of_sum<T>(x0, c, neg_lse, rest), exp2_of_sum<T>(x1, c, neg_lse, rest));
        });
    const bool cut = tile.is_partial();
    const KeyLanes<Stored> scores = {problem_, nullptr, nullptr};
    if (cut) scores.mask_out(p, tile);
    multiply_in_parts<T>(halves, r.dout.cols, score_part(problem_), RowMajor<T>{r.dout.data, r.dout.stride},
                         vt, ds, [&](Index i, Vec<T> x0, Vec<T> x1) HWY_ATTR {
                           const auto delta = hn::Set(d, r.delta[i]);
                           const T* row = panel_row(p, i);
                           store_row(ds, i, hn::Mul(hn::MulSub(x0, scale, delta), hn::Load(d, row)),
                                     hn::Mul(hn::MulSub(x1, scale, delta), hn::Load(d, row + kLanes<T>)));
                         });
    if (cut && !r.finite) scores.mask_out(ds, tile);  // else P = 0 has hidden it
  }

  // The same with all options, step by step, and P ⊙ M in place of P.
  HWY_ATTR void general_panel(T* p, T* ds, const Rows& r, const T* kt, const T* vt, const Tile& tile,
                              const Pieces& w) const {
    const KeyLanes<Stored> scores = {problem_, w.slope, w.keep};
    const LaneSplit halves = tile.template queries_by_half<T>();
    const auto store_in = [](T* panel) {
      return [panel](Index i, Vec<T> x0, Vec<T> x1) HWY_ATTR { store_row(panel, i, x0, x1); };
    };
    multiply_in_parts<T>(halves, r.q.cols, score_part(problem_), RowMajor<T>{r.q.data, r.q.stride}, kt, p,
                         store_in(p));
    scores.apply(p, tile);
    scores.probabilities(p, r.neg_lse, r.neg_lse_rest, tile);
    scores.mask_out(p, tile);
    multiply_in_parts<T>(halves, r.dout.cols, score_part(problem_), RowMajor<T>{r.dout.data, r.dout.stride},
                         vt, ds, store_in(ds));
    if (problem_.options.dropout > 0) scores.draw_keep(tile);
    scores.gradients(ds, p, r.delta, tile);
    scores.mask_out(ds, tile);
    if (grads_.dbias) add_dbias(ds, tile);
    scores.through_scale(ds, tile);
    scores.mask_out(ds, tile);
    if (problem_.options.dropout > 0) scores.drop(p, tile);
  }

  // dᵀ (dim, panel) += xᵀ w for w (queries, panel), where a NaN in x must not reach keys that its query does
  // not see: 0 · NaN is NaN. Rare, so in plain loops.
  void add_visible(T* dt, const T* w, Mat<const T> x, const Tile& tile) const {
    for (Index i = 0; i < x.rows; ++i) {
      for (Index j = 0; j < tile.keys.size(); ++j) {
        if (!problem_.visible(*tile.sequence, tile.h, tile.queries.begin + i, tile.keys.begin + j)) continue;
        for (Index c = 0; c < x.cols; ++c) dt[c * kPanel<T> + j] += x(i, c) * w[i * kPanel<T> + j];
      }
    }
  }

  // dQ (+)= dS' K
  HWY_ATTR void add_dq(const Tile& tile, const Rows& rows, Mat<const T> keys, bool overwrite,
                       const Pieces& w) const {
    const Mat<T> dq = dq_.head(tile.b(), tile.h).row_block(tile.queries.begin, tile.queries.size());
    const T* ds = w.ds;
    if (!rows.finite) {
      if (overwrite) zero(dq, {0, dq.rows});
      add_visible_dq(dq, ds, keys, tile);
      return;
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

  void add_visible_dq(Mat<T> dq, const T* ds, Mat<const T> k, const Tile& tile) const {
    for (Index i = 0; i < dq.rows; ++i) {
      for (Index j = 0; j < tile.keys.size(); ++j) {
        if (!problem_.visible(*tile.sequence, tile.h, tile.queries.begin + i, tile.keys.begin + j)) continue;
        const T w = ds[j / kPanel<T> * panel_size() + i * kPanel<T> + j % kPanel<T>];
        for (Index c = 0; c < dq.cols; ++c) dq(i, c) += w * k(j, c);
      }
    }
  }

  void add_dbias(const T* ds, const Tile& tile) const {
    for (Index i = 0; i < tile.queries.size(); ++i) {
      T* to = grads_.dbias.to.row(tile.b(), tile.h, tile.queries.begin + i) + tile.keys.begin;
      for (Index j = 0; j < tile.keys.size(); ++j) to[j] += ds[i * kPanel<T> + j];
    }
  }

  AttentionGrads<Stored> grads_;
  HeadsView<const Stored> dout_, out_;
  std::span<const T> lse_, dlse_;
  const AttentionProblem<Stored>& problem_;
  bool no_score_mods_;
  BackwardSchedule schedule_;
  OrderedAdds dq_adds_, dbias_adds_;
  memory::Block delta_block_;
  T* delta_;  // (B, Hq, Tq)
  memory::Block dq_block_;
  HeadsView<T> dq_;  // where dQ is summed
  Write write_q_;
  TaskWorkspace workspace_;
};

void backward_f32(const AttentionGrads<float>& grads, HeadsView<const float> dout, HeadsView<const float> out,
                  std::span<const float> lse, std::span<const float> dlse,
                  const AttentionProblem<float>& problem) {
  FlashBackward<float>(grads, dout, out, lse, dlse, problem).run();
}
void backward_f64(const AttentionGrads<double>& grads, HeadsView<const double> dout,
                  HeadsView<const double> out, std::span<const double> lse, std::span<const double> dlse,
                  const AttentionProblem<double>& problem) {
  FlashBackward<double>(grads, dout, out, lse, dlse, problem).run();
}
void backward_bf16(const AttentionGrads<bf16>& grads, HeadsView<const bf16> dout, HeadsView<const bf16> out,
                   std::span<const float> lse, std::span<const float> dlse,
                   const AttentionProblem<bf16>& problem) {
  FlashBackward<bf16>(grads, dout, out, lse, dlse, problem).run();
}

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels {

HWY_EXPORT(backward_f32);
HWY_EXPORT(backward_f64);
HWY_EXPORT(backward_bf16);

template <>
void flash_attention_backward<float>(const AttentionGrads<float>& grads, HeadsView<const float> dout,
                                     const AttentionInputs<float>& in, HeadsView<const float> out,
                                     std::span<const float> lse, const AttentionOptions& options,
                                     std::span<const float> dlse) {
  HWY_DYNAMIC_DISPATCH(backward_f32)(grads, dout, out, lse, dlse, AttentionProblem<float>(in, options));
}
template <>
void flash_attention_backward<double>(const AttentionGrads<double>& grads, HeadsView<const double> dout,
                                      const AttentionInputs<double>& in, HeadsView<const double> out,
                                      std::span<const double> lse, const AttentionOptions& options,
                                      std::span<const double> dlse) {
  HWY_DYNAMIC_DISPATCH(backward_f64)(grads, dout, out, lse, dlse, AttentionProblem<double>(in, options));
}
template <>
void flash_attention_backward<bf16>(const AttentionGrads<bf16>& grads, HeadsView<const bf16> dout,
                                    const AttentionInputs<bf16>& in, HeadsView<const bf16> out,
                                    std::span<const float> lse, const AttentionOptions& options,
                                    std::span<const float> dlse) {
  HWY_DYNAMIC_DISPATCH(backward_bf16)(grads, dout, out, lse, dlse, AttentionProblem<bf16>(in, options));
}

}  // namespace tilegrad::kernels
#endif
