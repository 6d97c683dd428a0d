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
// So every tile stands alone. It recomputes S and P, because that is cheaper than keeping them:
//   P = exp(S − LSE),   dP = (dO Vᵀ) ⊙ M,   dS = P ⊙ (dP − delta),   dB = dS,
//   S = f(scale Q Kᵀ) + B   gives   dQ += dS' K   and   dK += dS'ᵀ Q   with dS' = dS ⊙ f' · scale.
// (Where the rounding of a large LSE would show, P = exp(S − m) / l instead: see row_statistics-inl.h.)
// A sink is one more logit without a value (dp = 0), of probability p = exp(sink − lse):
//   dsink = −Σ_i p_i delta_i.
//
// The lanes of a vector are keys. A task has a block of keys, and walks over all queries that see any of
// them, in all heads of the group. Kᵀ, Vᵀ, dKᵀ, dVᵀ are panels of two vectors of keys, P and dS as well:
//   S = Q (Kᵀ),   dP = dO (Vᵀ),   dVᵀ += dOᵀ (P),   dKᵀ += Qᵀ (dS),   dQ += dS (K)
// where the factor in brackets is read by vectors and the other element by element from its natural layout.
//
// dK and dV belong to the task. dQ is summed over tasks, and the sum must have a fixed order to be the same
// for every number of threads: each tile of dQ counts the tiles of keys that have added to it, and the next
// one waits for its ticket. Tasks are handed out in the order of these tickets, so whoever is waited for is
// running or has finished: nothing deadlocks, and two tasks of a head soon run one tile apart. The gradient
// of a bias that is broadcast over heads or batch is summed in the same manner. See schedule.h.
#if defined(TILEGRAD_KERNELS_ATTENTION_FLASH_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_ATTENTION_FLASH_BACKWARD_INL_H_
#undef TILEGRAD_KERNELS_ATTENTION_FLASH_BACKWARD_INL_H_
#else
#define TILEGRAD_KERNELS_ATTENTION_FLASH_BACKWARD_INL_H_
#endif

#include "tilegrad/kernels/attention/backward_tile-inl.h"
#include "tilegrad/kernels/attention/flash.h"
#include "tilegrad/kernels/attention/grads.h"
#include "tilegrad/kernels/attention/masked_products-inl.h"
#include "tilegrad/kernels/attention/row_statistics-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

template <class T>
class FlashBackward {
 public:
  FlashBackward(const FlashGrads<T>& grads, const FlashInputs<T>& in, const FlashOutputs<T>& y,
                const AttentionProblem<T>& problem, const BackwardSchedule& schedule)
      : grads_(grads),
        in_(in),
        y_(y),
        problem_(problem),
        schedule_(schedule),
        tiles_(problem, grads, schedule.tile().queries),
        statistics_(in, y.lse, problem),
        dq_adds_(schedule.dq_tiles()),
        dbias_adds_(schedule.dbias_tiles()),
        workspace_(backward_workspace(in, y, problem, schedule)),
        rows_block_(problem.batch * problem.heads * problem.tq * Index{sizeof(T)},
                    memory::Category::workspace),
        dq_block_(grads.dq.to.is_narrow()
                      ? problem.batch * problem.tq * problem.heads * problem.dim * Index{sizeof(T)}
                      : 0,
                  memory::Category::workspace) {
    delta_ = reinterpret_cast<T*>(rows_block_.data());
    dq_ = grads.dq.to.wide;
    write_q_ = grads.dq.write;
    if (grads.dq.to.is_narrow()) {  // it is summed in T first: a rounding in every step would lose too much
      dq_ = {reinterpret_cast<T*>(dq_block_.data()), problem.batch, problem.tq, problem.heads, problem.dim};
      write_q_ = Write::overwrite;
    }
  }

  void run() {
    if (statistics_.any()) {
      for_each_query_tile([&](const SequenceTile& tile, Index h, const Pieces& w)
                              HWY_ATTR { statistics_.find(tile, h, w); });
    }
    for_each_query_tile([&](const SequenceTile& tile, Index h, const Pieces& w)
                            HWY_ATTR { compute_delta(tile, h, w); });
    if (grads_.dsinks) compute_dsinks();
    clear_unseen();
    workspace_.run(std::ssize(schedule_.tasks()), [&](Index n, const Pieces& w) {
      const BackwardSchedule::Task& task = schedule_.tasks()[n];
      run_key_tile(schedule_.key_tiles()[task.key_tile], task.hkv, w);
    });
    round_dq();
  }

 private:
  using Pieces = BackwardPieces<T>;

  // A task's keys and values.
  struct Keys {
    Mat<const T> k, v;  // (nk, D), (nk, Dv)
    bool finite;        // whether they hold neither NaN nor Inf
  };

  template <class F>
  void for_each_query_tile(F&& f) const {
    const Index tiles = std::ssize(schedule_.query_tiles());
    workspace_.run(tiles * problem_.heads,
                   [&](Index n, const Pieces& w) { f(schedule_.query_tiles()[n % tiles], n / tiles, w); });
  }

  // delta = rowsum(dO ⊙ O) − dLSE; 0 for rows that saw nothing.
  HWY_ATTR void compute_delta(const SequenceTile& tile, Index h, const Pieces& w) const {
    const Sequence& s = problem_.sequences[tile.sequence];
    const auto dout = widened(StoredRows(y_.dout, s.b, h, tile.rows), w.copied_dout);
    const auto out = widened(StoredRows(y_.out, s.b, h, tile.rows), w.copied_q);
    for (Index i = 0; i < tile.rows.size(); ++i) {
      const Index row = problem_.row(s.b, h, tile.rows.begin + i);
      T sum = dot(out.cols, dout.row(i), out.row(i));
      // A row that sees nothing but a sink has o = 0, whatever do is.
      if (!std::isfinite(sum) && problem_.fully_masked(s, h, tile.rows.begin + i)) sum = 0;
      if (!y_.dlse.empty()) sum -= y_.dlse[row];
      delta_[row] = y_.lse[row] == -std::numeric_limits<T>::infinity() ? T{0} : sum;
    }
    w.stages.end(Stage::delta);
  }

  // dsink = −Σ_i exp(sink − lse_i) delta_i, over the batch as well.
  void compute_dsinks() const {
    parallel_tasks(problem_.heads, [&](Index h, int) {
      double sum = 0;
      for (Index b = 0; b < problem_.batch; ++b) {
        for (Index row = problem_.row(b, h, 0); row < problem_.row(b, h, problem_.tq); ++row) {
          if (delta_[row] != 0)
            sum -= statistics_.sink_probability(h, row) * static_cast<double>(delta_[row]);
        }
      }
      store(grads_.dsinks.to[h], grads_.dsinks.write, static_cast<T>(sum));
    });
  }

  bool needs_dq() const { return static_cast<bool>(grads_.dq); }

  // What no task writes: dQ of tiles of queries that see nothing, dK and dV of padding, and dbias, to which
  // tasks add.
  void clear_unseen() const {
    workspace_.run(std::ssize(schedule_.query_tiles()), [&](Index n, const Pieces&) {
      const SequenceTile& tile = schedule_.query_tiles()[n];
      if (!needs_dq() || write_q_ == Write::accumulate || !schedule_.unseen(tile)) return;
      for (Index h = 0; h < problem_.heads; ++h)
        zero(dq_.head(problem_.sequences[tile.sequence].b, h), tile.rows);
    });
    for (const Sequence& s : problem_.sequences) {
      if (problem_.k_lengths.empty()) break;
      for (Index h = 0; h < problem_.kv_heads; ++h) {
        for (const auto* grad : {&grads_.dk, &grads_.dv}) {
          if (!*grad || grad->write == Write::accumulate) continue;
          const StoredRows rows(grad->to, s.b, h, {s.tk, problem_.tk});
          zero(rows.wide, {0, rows.wide.rows});
          zero(rows.brain, {0, rows.brain.rows});
          zero(rows.half, {0, rows.half.rows});
        }
      }
    }
    clear_dbias(grads_.dbias, problem_);
  }
  template <class U>
  static void zero(Mat<U> x, Range rows) {
    for (Index r = rows.begin; r < rows.end; ++r) std::fill_n(x.row(r), x.cols, U{0});
  }

  HWY_ATTR void run_key_tile(const SequenceTile& key_tile, Index hkv, const Pieces& w) {
    const Sequence& s = problem_.sequences[key_tile.sequence];
    const auto k = widened(StoredRows(in_.k, s.b, hkv, key_tile.rows), w.wide_k);
    const auto v = widened(StoredRows(in_.v, s.b, hkv, key_tile.rows), w.wide_v);
    pack_rows(w.kt, k);
    pack_rows(w.vt, v);
    if (needs_dq()) pack_columns(w.k, k);
    std::fill_n(w.dkt, schedule_.panels_per_tile() * k.cols * kPanel<T>, T{0});
    std::fill_n(w.dvt, schedule_.panels_per_tile() * v.cols * kPanel<T>, T{0});
    const Keys keys = {k, v, all_finite(k) && all_finite(v)};
    w.stages.end(Stage::prepare);

    const Range query_tiles = schedule_.query_tiles_of(key_tile);
    const auto run = [&](Index h, Index n) HWY_ATTR {
      run_tile({&s, h, schedule_.query_tiles()[n].rows, key_tile.rows}, key_tile, n, keys, w);
    };
    const Range heads = {hkv * problem_.group_size(), (hkv + 1) * problem_.group_size()};
    if (grads_.dbias) {
      for (Index h = heads.begin; h < heads.end; ++h) {
        const Ticket ticket = schedule_.dbias_ticket(key_tile, h);
        dbias_adds_.wait(ticket);
        w.stages.end(Stage::wait);
        for (Index n = query_tiles.begin; n < query_tiles.end; ++n) run(h, n);
        dbias_adds_.done(ticket);
      }
    } else {  // query by query, because the heads of a query are next to each other in memory
      for (Index n = query_tiles.begin; n < query_tiles.end; ++n) {
        for (Index h = heads.begin; h < heads.end; ++h) run(h, n);
      }
    }
    write_out(grads_.dk, key_tile, hkv, w.dkt, k.cols, w);
    write_out(grads_.dv, key_tile, hkv, w.dvt, v.cols, w);
    w.stages.end(Stage::store);
  }

  void write_out(const StoredGrad<T>& grad, const SequenceTile& tile, Index hkv, T* panels, Index dim,
                 const Pieces& w) const {
    if (!grad) return;
    for (Index j = tile.rows.begin, n = 0; j < tile.rows.end; j += kPanel<T>, ++n) {
      const Range rows = {j, std::min(j + kPanel<T>, tile.rows.end)};
      store_transposed(StoredRows(grad.to, problem_.sequences[tile.sequence].b, hkv, rows), grad.write,
                       key_panel(panels, n, dim), w.wide_rows);
    }
  }

  HWY_ATTR void run_tile(const Tile& tile, const SequenceTile& key_tile, Index query_tile, const Keys& keys,
                         const Pieces& w) {
    const QueryRows<T> rows = rows_of(tile, keys.finite, w);
    w.stages.end(Stage::prepare);
    for (Index n = 0; n * kPanel<T> < tile.keys.size(); ++n) tiles_.run_panel(tile, rows, n, w);
    if (!needs_dq()) return;
    const Ticket ticket = schedule_.dq_ticket(key_tile, query_tile, tile.h);
    dq_adds_.wait(ticket);
    w.stages.end(Stage::wait);
    tiles_.add_dq(dq_.head(tile.b(), tile.h).row_block(tile.queries.begin, tile.queries.size()), tile,
                  rows.finite, keys.k, ticket.number == 0 && write_q_ == Write::overwrite, w);
    dq_adds_.done(ticket);
    w.stages.end(Stage::dq);
  }

  HWY_ATTR QueryRows<T> rows_of(const Tile& tile, bool keys_finite, const Pieces& w) const {
    const auto q = near_rows(in_.q, tile.b(), tile.h, tile.queries, w.copied_q);
    const auto dout = near_rows(y_.dout, tile.b(), tile.h, tile.queries, w.copied_dout);
    bool finite = true, any_large = false;
    const T factor = problem_.no_score_mods() ? static_cast<T>(problem_.scale) : T{1};
    for (Index i = 0; i < q.rows; ++i) {
      const Index row = problem_.row(tile.b(), tile.h, tile.queries.begin + i);
      const auto [max, neg] = statistics_.of(row);
      // A rounding here would be a relative error of all probabilities of the row.
      w.max[i] = max;
      w.neg_lse[i] = static_cast<T>(neg);
      w.neg_lse_rest[i] = std::isinf(neg) ? T{0} : static_cast<T>(neg - static_cast<double>(w.neg_lse[i]));
      any_large |= max != 0;
      w.delta[i] = delta_[row] * factor;
      // Only the sink of a row that sees nothing else learns of a NaN in its dlse.
      if (!std::isfinite(w.delta[i]) && problem_.fully_masked(*tile.sequence, tile.h, tile.queries.begin + i))
        w.delta[i] = 0;
      finite &= std::abs(w.delta[i]) <= std::numeric_limits<T>::max();
    }
    const bool cut = has_masked_pairs(problem_, {tile.sequence, tile.h, tile.queries, tile.keys});
    return {.q = q,
            .dout = dout,
            .neg_lse = w.neg_lse,
            .neg_lse_rest = w.neg_lse_rest,
            .max = any_large ? w.max : nullptr,
            .delta = w.delta,
            .finite = !cut || (finite && keys_finite && all_finite(q) && all_finite(dout))};
  }

  void round_dq() const {
    if constexpr (std::is_same_v<T, float>) {
      if (!grads_.dq.to.is_narrow()) return;
      workspace_.run(problem_.batch * problem_.heads, [&](Index n, const Pieces& w) HWY_ATTR {
        const Index b = n / problem_.heads, h = n % problem_.heads;
        store_narrowed(StoredRows(grads_.dq.to, b, h, {0, problem_.tq}), grads_.dq.write, dq_.head(b, h));
        w.stages.end(Stage::store);
      });
    }
  }

  const FlashGrads<T>& grads_;
  const FlashInputs<T>& in_;
  const FlashOutputs<T>& y_;
  const AttentionProblem<T>& problem_;
  const BackwardSchedule& schedule_;
  BackwardTile<T> tiles_;
  RowStatistics<T> statistics_;
  OrderedAdds dq_adds_, dbias_adds_;
  Workspace<T, Pieces> workspace_;
  memory::Block rows_block_, dq_block_;
  T* delta_;         // (B, Hq, Tq)
  HeadsView<T> dq_;  // where dQ is summed
  Write write_q_;
};

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
