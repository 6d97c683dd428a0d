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
// A sink is one more logit without a value (dp = 0), of probability p = exp(sink − lse): dsink = −Σ_i p_i
// delta_i.
//
// The lanes of a vector are keys. A task has a block of keys, and walks over all queries that see any of
// them, in all heads of the group. Kᵀ, Vᵀ, dKᵀ, dVᵀ are panels of two vectors of keys, P and dS as well:
//   S = Q (Kᵀ),   dP = dO (Vᵀ),   dVᵀ += dOᵀ (P),   dKᵀ += Qᵀ (dS),   dQ += dS (K)
// where the factor in brackets is read by vectors and the other element by element from its natural layout.
//
// dK and dV belong to the task. dQ is summed over tasks. The sum must have a fixed order to be the same for
// every number of threads: each tile of dQ counts the blocks of keys that have added to it, and block number
// n waits until it is its turn. Tasks are handed out in the order of n, so whoever is waited for is running
// or has finished: nothing deadlocks, and two tasks of a head soon run one tile apart. The gradient of a bias
// that is broadcast over heads or batch is summed in the same manner.
#include "tilegrad/kernels/attention/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/attention/flash_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/attention/grads.h"
#include "tilegrad/kernels/attention/score_mods-inl.h"
#include "tilegrad/kernels/attention/turns.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

template <class S>
class FlashBackward {
  using T = Compute<S>;
  static constexpr bool kWidens = !std::is_same_v<S, T>;

 public:
  FlashBackward(const AttentionGrads<S>& grads, HeadsView<const S> dout, HeadsView<const S> out,
                std::span<const T> lse, std::span<const T> dlse, const AttentionProblem<S>& problem)
      : grads_(grads),
        dout_(dout),
        out_(out),
        lse_(lse),
        dlse_(dlse),
        problem_(problem),
        plain_(problem.plain()),
        tile_(tile_sizes(problem)),
        panels_(ceil_div(tile_.keys, kPanel<T>)),
        query_blocks_(cut(problem.sequences, &Sequence::queries, tile_.queries)),
        key_blocks_(cut(problem.sequences, &Sequence::keys, tile_.keys)),
        first_query_block_(first_blocks()),
        tasks_(ordered_tasks()),
        query_turns_(static_cast<Index>(query_blocks_.size()) * problem.heads),
        bias_places_(problem.in.cu_k.empty() ? ceil_div(problem.tk, tile_.keys)
                                             : static_cast<Index>(key_blocks_.size())),
        bias_turns_(grads.dbias ? bias_places_ * problem.batch * problem.heads : 0),
        delta_block_(problem.batch * problem.heads * problem.tq * static_cast<Index>(sizeof(T)),
                     memory::Category::workspace),
        delta_(reinterpret_cast<T*>(delta_block_.data())),
        dq_block_(kWidens && grads.dq.data != nullptr
                      ? problem.batch * problem.tq * problem.heads * problem.dim * Index{sizeof(T)}
                      : 0,
                  memory::Category::workspace),
        dq_(dq_sums()),
        write_q_(kWidens ? Write::overwrite : grads.write_q),
        scratch_({panels_ * problem.dim * kPanel<T>, panels_ * problem.dim_v * kPanel<T>,
                  panels_ * problem.dim * kPanel<T>, panels_ * problem.dim_v * kPanel<T>,
                  ceil_div(problem.dim, kPanel<T>) * kPanel<T> * tile_.keys, panel_size() * panels_,
                  panel_size(), plain_ ? 0 : panel_size(), plain_ ? 0 : panel_size(), tile_.queries,
                  tile_.queries, tile_.queries, wide(tile_.keys), wide(tile_.keys), wide(tile_.queries),
                  wide(tile_.queries), wide(kPanel<T>)}) {}

  void run() {
    compute_delta();
    if (!grads_.dsinks.empty()) compute_dsinks();
    clear_unseen();
    parallel_tasks(static_cast<Index>(tasks_.size()), [&](Index n, int thread) {
      const Task& task = tasks_[static_cast<std::size_t>(n)];
      run_block(key_blocks_[static_cast<std::size_t>(task.key_block)], task.hkv, thread);
    });
    if constexpr (kWidens) round_dq();
  }

 private:
  // The last five are for what is stored in fewer bits than T: a task's keys and values, a tile's queries and
  // dO, and rows on their way out.
  enum Piece : std::size_t {
    kKt,
    kVt,
    kDkt,
    kDvt,
    kK,
    kDs,
    kP,
    kSlope,
    kKeep,
    kNegLse,
    kNegLseRest,
    kDelta,
    kWideK,
    kWideV,
    kWideQ,
    kWideDout,
    kWideRows
  };

  // A block of keys in one key/value head.
  struct Task {
    Index key_block, hkv;
  };

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

  static TileSizes tile_sizes(const AttentionProblem<S>& problem) {
    const TileSizes& wanted = problem.options.tiles;
    const Index size = std::max(problem.dim, problem.dim_v) > 256 ? 256 : problem.tk <= 256 ? 64 : 128;
    const Index keys = wanted.keys > 0 ? wanted.keys : size,
                queries = wanted.queries > 0 ? wanted.queries : size;
    return {std::min(queries, std::max<Index>(problem.tq, 1)),
            std::min(keys, std::max<Index>(problem.tk, 1))};
  }
  Index panel_size() const { return tile_.queries * kPanel<T>; }
  Index wide(Index rows) const { return kWidens ? rows * std::max(problem_.dim, problem_.dim_v) : 0; }

  // dQ is summed over many tasks: in place, or apart if a rounding in every step would lose too much.
  HeadsView<T> dq_sums() const {
    if constexpr (!kWidens) {
      return grads_.dq;
    } else {
      return {reinterpret_cast<T*>(dq_block_.data()), problem_.batch, problem_.tq, problem_.heads,
              problem_.dim};
    }
  }
  bool wants_dq() const { return grads_.dq.data != nullptr; }
  void round_dq() const {
    if (!wants_dq()) return;
    parallel_tasks(problem_.batch * problem_.heads, [&](Index n, int) HWY_ATTR {
      const Index b = n / problem_.heads, h = n % problem_.heads;
      store_narrowed(grads_.dq.head(b, h), grads_.write_q, dq_.head(b, h));
    });
  }

  std::vector<Index> first_blocks() const {
    std::vector<Index> first(problem_.sequences.size());
    for (const Block& block : query_blocks_) first[static_cast<std::size_t>(block.sequence)] = block.first;
    return first;
  }

  // delta = rowsum(dO ⊙ O) − dLSE; 0 for rows that saw nothing.
  void compute_delta() {
    const auto blocks = static_cast<Index>(query_blocks_.size());
    parallel_tasks(blocks * problem_.heads, [&](Index n, int thread) HWY_ATTR {
      const Block& block = query_blocks_[static_cast<std::size_t>(n % blocks)];
      const Sequence& s = problem_.sequences[static_cast<std::size_t>(block.sequence)];
      const Index h = n / blocks, i0 = block.rows.begin;
      const auto dout =
          widened(dout_.head(s.b, h).row_block(i0, block.rows.size()), scratch_.piece(thread, kWideDout));
      const auto out =
          widened(out_.head(s.b, h).row_block(i0, block.rows.size()), scratch_.piece(thread, kWideQ));
      for (Index i = 0; i < block.rows.size(); ++i) {
        const Index row = problem_.row(s.b, h, i0 + i);
        T sum = dot(out.cols, dout.row(i), out.row(i));
        // A row that sees nothing but a sink has o = 0, whatever do is.
        if (!std::isfinite(sum) && problem_.blind(s, h, i0 + i)) sum = 0;
        if (!dlse_.empty()) sum -= dlse_[static_cast<std::size_t>(row)];
        delta_[row] = lse_[static_cast<std::size_t>(row)] == -std::numeric_limits<T>::infinity() ? T{0} : sum;
      }
    });
  }

  // dsink = −Σ_i exp(sink − lse_i) delta_i, over the batch as well.
  void compute_dsinks() {
    parallel_tasks(problem_.heads, [&](Index h, int) {
      const auto sink = static_cast<double>(problem_.in.sinks[static_cast<std::size_t>(h)]);
      double sum = 0;
      for (Index b = 0; b < problem_.batch; ++b) {
        for (Index row = problem_.row(b, h, 0); row < problem_.row(b, h, problem_.tq); ++row) {
          if (delta_[row] == 0) continue;
          sum -= std::exp(sink - static_cast<double>(lse_[static_cast<std::size_t>(row)])) *
                 static_cast<double>(delta_[row]);
        }
      }
      store(grads_.dsinks[static_cast<std::size_t>(h)], grads_.write_sinks, static_cast<T>(sum));
    });
  }

  // What no task writes: dQ of blocks of queries that see nothing, dK and dV of padding, and dbias, to which
  // tasks add.
  void clear_unseen() const {
    parallel_tasks(static_cast<Index>(query_blocks_.size()), [&](Index n, int) {
      const Block& block = query_blocks_[static_cast<std::size_t>(n)];
      const Sequence& s = problem_.sequences[static_cast<std::size_t>(block.sequence)];
      if (!wants_dq() || write_q_ == Write::accumulate || first_turn(s, block).seen) return;
      for (Index h = 0; h < problem_.heads; ++h) zero(dq_.head(s.b, h), block.rows);
    });
    for (const Sequence& s : problem_.sequences) {
      if (problem_.in.k_lengths.empty()) break;
      for (Index h = 0; h < problem_.kv_heads; ++h) {
        if (grads_.dk.data != nullptr && grads_.write_k == Write::overwrite)
          zero(grads_.dk.head(s.b, h), {s.tk, problem_.tk});
        if (grads_.dv.data != nullptr && grads_.write_v == Write::overwrite)
          zero(grads_.dv.head(s.b, h), {s.tk, problem_.tk});
      }
    }
    clear_dbias(grads_, problem_);
  }
  template <class U>
  static void zero(Mat<U> x, Range rows) {
    for (Index r = rows.begin; r < rows.end; ++r) std::fill_n(x.row(r), x.cols, U{0});
  }

  // The first block of keys of its sequence that adds to this block of dQ, if there is one.
  struct FirstTurn {
    bool seen;
    Index key_block;
  };
  FirstTurn first_turn(const Sequence& s, const Block& queries) const {
    const Range keys = s.keys_of(queries.rows);
    const Index block = (keys.begin - s.k0) / tile_.keys;
    return {s.k0 + block * tile_.keys < keys.end && keys.begin < s.k0 + s.tk, block};
  }

  // Tasks of one head that run at the same time wait for each other at dQ. So as many heads as there are
  // threads take turns, a block of keys each; heads that lie far from each other, because threads that write
  // to neighbouring rows take cache lines from each other. Only a gradient of the bias, which heads may
  // share, wants them one after the other. The result depends on turns alone, not on this order.
  std::vector<Task> ordered_tasks() const {
    struct Head {
      Index first, count, hkv;  // its blocks of keys
    };
    std::vector<Head> heads;
    for (const Block& block : key_blocks_) {
      for (Index hkv = 0; block.number == 0 && hkv < problem_.kv_heads; ++hkv)
        heads.push_back({block.first, block.count, hkv});
    }
    std::vector<Task> tasks;
    const auto count = static_cast<Index>(heads.size());
    const Index groups = grads_.dbias ? count : ceil_div(count, threads());
    for (Index group = 0; group < groups; ++group) {
      bool more = true;
      for (Index n = 0; more; ++n) {
        more = false;
        for (Index h = group; h < count; h += groups) {
          const Head& head = heads[static_cast<std::size_t>(h)];
          if (n < head.count) tasks.push_back({head.first + n, head.hkv});
          more = more || n + 1 < head.count;
        }
      }
    }
    return tasks;
  }

  HWY_ATTR void run_block(const Block& block, Index hkv, int thread) {
    const Sequence& s = problem_.sequences[static_cast<std::size_t>(block.sequence)];
    const auto rows = [&](const HeadsView<const S>& x) {
      return x.head(s.b, hkv).row_block(block.rows.begin, block.rows.size());
    };
    const auto k = widened(rows(problem_.in.k), scratch_.piece(thread, kWideK));
    const auto v = widened(rows(problem_.in.v), scratch_.piece(thread, kWideV));
    for (Index j = 0, n = 0; j < k.rows; j += kPanel<T>, ++n) {
      const Index nk = std::min(kPanel<T>, k.rows - j);
      pack_transposed(key_panel(thread, kKt, n, k.cols), k.row_block(j, nk));
      pack_transposed(key_panel(thread, kVt, n, v.cols), v.row_block(j, nk));
    }
    if (wants_dq()) pack_columns(scratch_.piece(thread, kK), k);
    std::fill_n(scratch_.piece(thread, kDkt), panels_ * k.cols * kPanel<T>, T{0});
    std::fill_n(scratch_.piece(thread, kDvt), panels_ * v.cols * kPanel<T>, T{0});
    const Keys keys = {k, v, all_finite(k) && all_finite(v)};

    const Range queries = s.queries_of(block.rows);
    const Index first = (queries.begin - s.q0) / tile_.queries;
    const Index end = queries.empty() ? first : ceil_div(queries.end - s.q0, tile_.queries);
    const auto tile = [&](Index h, Index n) HWY_ATTR {
      const Index begin = s.q0 + n * tile_.queries;
      const Range some = {begin, std::min(begin + tile_.queries, s.q0 + s.tq)};
      run_tile({&s, h, hkv, some, block.rows}, block, n, keys, thread);
    };
    const Range heads = {hkv * problem_.group(), (hkv + 1) * problem_.group()};
    if (grads_.dbias) {
      for (Index h = heads.begin; h < heads.end; ++h) {
        begin_dbias(s, h, block);
        for (Index n = first; n < end; ++n) tile(h, n);
        end_dbias(s, h, block);
      }
    } else {  // query by query, because the heads of a query lie beside each other
      for (Index n = first; n < end; ++n) {
        for (Index h = heads.begin; h < heads.end; ++h) tile(h, n);
      }
    }
    write_out(grads_.dk, grads_.write_k, s, hkv, block, kDkt, thread);
    write_out(grads_.dv, grads_.write_v, s, hkv, block, kDvt, thread);
  }

  T* key_panel(int thread, Piece piece, Index number, Index dim) const {
    return scratch_.piece(thread, piece) + number * dim * kPanel<T>;
  }

  void write_out(const HeadsView<S>& grad, Write write, const Sequence& s, Index hkv, const Block& block,
                 Piece piece, int thread) const {
    if (grad.data == nullptr) return;
    for (Index j = block.rows.begin, n = 0; j < block.rows.end; j += kPanel<T>, ++n) {
      const Mat<S> to = grad.head(s.b, hkv).row_block(j, std::min(kPanel<T>, block.rows.end - j));
      store_transposed(to, write, key_panel(thread, piece, n, grad.dim), scratch_.piece(thread, kWideRows));
    }
  }

  HWY_ATTR Rows rows_of(const Tile& at, bool keys_finite, int thread) const {
    const auto rows = [&](const HeadsView<const S>& x) {
      return x.head(at.b(), at.h).row_block(at.queries.begin, at.queries.size());
    };
    const auto q = widened(rows(problem_.in.q), scratch_.piece(thread, kWideQ));
    const auto dout = widened(rows(dout_), scratch_.piece(thread, kWideDout));
    T *neg_lse = scratch_.piece(thread, kNegLse), *rest = scratch_.piece(thread, kNegLseRest);
    T* delta = scratch_.piece(thread, kDelta);
    bool finite = true;
    const T factor = plain_ ? static_cast<T>(problem_.scale) : T{1};
    for (Index i = 0; i < q.rows; ++i) {
      const Index row = problem_.row(at.b(), at.h, at.queries.begin + i);
      // A rounding here would be a relative error of all probabilities of the row.
      const double lse = static_cast<double>(lse_[static_cast<std::size_t>(row)]) * std::numbers::log2e;
      // exp2(S − ∞) = 0 in a row that saw nothing, while S + ∞ would not be.
      const double neg = std::isinf(lse) ? -std::abs(lse) : -lse;
      neg_lse[i] = static_cast<T>(neg);
      rest[i] = std::isinf(lse) ? T{0} : static_cast<T>(neg - static_cast<double>(neg_lse[i]));
      delta[i] = delta_[row] * factor;
      // Only the sink of a row that sees nothing else learns of a NaN in its dlse.
      if (!std::isfinite(delta[i]) && problem_.blind(*at.sequence, at.h, at.queries.begin + i)) delta[i] = 0;
      finite &= std::abs(delta[i]) <= std::numeric_limits<T>::max();
    }
    const bool exposed = at.cut() || problem_.in.mask;
    return {q,    dout,  neg_lse,
            rest, delta, !exposed || (finite && keys_finite && all_finite(q) && all_finite(dout))};
  }

  HWY_ATTR void run_tile(const Tile& at, const Block& block, Index query_block, const Keys& keys,
                         int thread) {
    const Rows rows = rows_of(at, keys.finite, thread);
    for (Index n = 0; n * kPanel<T> < at.keys.size(); ++n) run_panel(at, rows, n, thread);
    if (!wants_dq()) return;
    const Index number = first_query_block_[static_cast<std::size_t>(block.sequence)] + query_block;
    const Index place = number * problem_.heads + at.h;
    const Index turn =
        block.number - first_turn(*at.sequence, query_blocks_[static_cast<std::size_t>(number)]).key_block;
    query_turns_.wait(place, turn);
    add_dq(at, rows, keys.k, turn == 0 && write_q_ == Write::overwrite, thread);
    query_turns_.pass(place, turn);
  }

  // P and dS of one panel of keys, and what they add to dVᵀ and dKᵀ.
  HWY_ATTR void run_panel(const Tile& tile, const Rows& rows, Index n, int thread) const {
    const Index j = tile.keys.begin + n * kPanel<T>;
    Tile at = tile;
    at.keys = {j, std::min(j + kPanel<T>, tile.keys.end)};
    T* ds = scratch_.piece(thread, kDs) + n * panel_size();
    at.queries = seen_queries(tile, at.keys);
    const Range seen = {at.queries.begin - tile.queries.begin, at.queries.end - tile.queries.begin};
    std::fill(ds, panel_row(ds, seen.begin), T{0});
    std::fill(panel_row(ds, seen.end), panel_row(ds, tile.queries.size()), T{0});
    if (seen.empty()) return;
    ds = panel_row(ds, seen.begin);
    T* p = scratch_.piece(thread, kP);
    const Rows r = {rows.q.row_block(seen.begin, seen.size()),
                    rows.dout.row_block(seen.begin, seen.size()),
                    rows.neg_lse + seen.begin,
                    rows.neg_lse_rest + seen.begin,
                    rows.delta + seen.begin,
                    rows.finite};
    const T *kt = key_panel(thread, kKt, n, r.q.cols), *vt = key_panel(thread, kVt, n, r.dout.cols);
    if (plain_) {
      plain_panel(p, ds, r, kt, vt, at);
    } else {
      general_panel(p, ds, r, kt, vt, at, thread);
    }
    T *dkt = key_panel(thread, kDkt, n, r.q.cols), *dvt = key_panel(thread, kDvt, n, r.dout.cols);
    if (!rows.finite) {
      add_seen(dvt, p, r.dout, at);
      add_seen(dkt, ds, r.q, at);
      return;
    }
    const Halves halves = at.template queries_by_half<T>();
    if (grads_.dv.data != nullptr)
      multiply_add(dvt, r.dout.cols, halves, Transposed<T>{r.dout.data, r.dout.stride}, p);
    if (grads_.dk.data != nullptr)
      multiply_add(dkt, r.q.cols, halves, Transposed<T>{r.q.data, r.q.stride}, ds);
  }

  // The queries of a tile that see some of the keys; an empty range inside the tile if none does.
  static Range seen_queries(const Tile& tile, Range keys) {
    const Range all = tile.sequence->queries_of(keys);
    const Index begin = std::clamp(all.begin, tile.queries.begin, tile.queries.end);
    return {begin, std::clamp(all.end, begin, tile.queries.end)};
  }

  // P = exp2(c Q Kᵀ − LSE), dS' = P ⊙ (scale dO Vᵀ − scale delta), in the registers of the products.
  HWY_ATTR void plain_panel(T* p, T* ds, const Rows& r, const T* kt, const T* vt, const Tile& at) const {
    const Tag<T> d;
    const auto scale = hn::Set(d, static_cast<T>(problem_.scale)), c = hn::Set(d, to_log2(problem_));
    const Halves halves = at.template queries_by_half<T>();
    multiply_in_parts<T>(
        halves, r.q.cols, score_part(problem_), Natural<T>{r.q.data, r.q.stride}, kt, p,
        [&](Index i, Vec<T> x0, Vec<T> x1) HWY_ATTR {
          const auto neg_lse = hn::Set(d, r.neg_lse[i]), rest = hn::Set(d, r.neg_lse_rest[i]);
          store_row(p, i, exp2_of_sum<T>(x0, c, neg_lse, rest), exp2_of_sum<T>(x1, c, neg_lse, rest));
        });
    const bool cut = at.cut();
    const KeyLanes<S> scores = {problem_, nullptr, nullptr};
    if (cut) scores.hide(p, at);
    multiply_in_parts<T>(halves, r.dout.cols, score_part(problem_), Natural<T>{r.dout.data, r.dout.stride},
                         vt, ds, [&](Index i, Vec<T> x0, Vec<T> x1) HWY_ATTR {
                           const auto delta = hn::Set(d, r.delta[i]);
                           const T* row = panel_row(p, i);
                           store_row(ds, i, hn::Mul(hn::MulSub(x0, scale, delta), hn::Load(d, row)),
                                     hn::Mul(hn::MulSub(x1, scale, delta), hn::Load(d, row + kLanes<T>)));
                         });
    if (cut && !r.finite) scores.hide(ds, at);  // else P = 0 has hidden it
  }

  // The same with all options, step by step, and P ⊙ M in place of P.
  HWY_ATTR void general_panel(T* p, T* ds, const Rows& r, const T* kt, const T* vt, const Tile& at,
                              int thread) const {
    const KeyLanes<S> scores = {problem_, scratch_.piece(thread, kSlope), scratch_.piece(thread, kKeep)};
    const Halves halves = at.template queries_by_half<T>();
    const auto store_in = [](T* panel) {
      return [panel](Index i, Vec<T> x0, Vec<T> x1) HWY_ATTR { store_row(panel, i, x0, x1); };
    };
    multiply_in_parts<T>(halves, r.q.cols, score_part(problem_), Natural<T>{r.q.data, r.q.stride}, kt, p,
                         store_in(p));
    scores.modify(p, at);
    scores.probabilities(p, r.neg_lse, r.neg_lse_rest, at);
    scores.hide(p, at);
    multiply_in_parts<T>(halves, r.dout.cols, score_part(problem_), Natural<T>{r.dout.data, r.dout.stride},
                         vt, ds, store_in(ds));
    if (problem_.options.dropout > 0) scores.draw_keep(at);
    scores.gradients(ds, p, r.delta, at);
    scores.hide(ds, at);
    if (grads_.dbias) add_dbias(ds, at);
    scores.through_scale(ds, at);
    scores.hide(ds, at);
    if (problem_.options.dropout > 0) scores.drop(p, at);
  }

  // dᵀ (dim, panel) += xᵀ w for w (queries, panel), where a NaN in x must not reach keys that its query does
  // not see: 0 · NaN is NaN. Rare, so in plain loops.
  void add_seen(T* dt, const T* w, Mat<const T> x, const Tile& at) const {
    for (Index i = 0; i < x.rows; ++i) {
      for (Index j = 0; j < at.keys.size(); ++j) {
        if (!problem_.sees(*at.sequence, at.h, at.queries.begin + i, at.keys.begin + j)) continue;
        for (Index c = 0; c < x.cols; ++c) dt[c * kPanel<T> + j] += x(i, c) * w[i * kPanel<T> + j];
      }
    }
  }

  // dQ (+)= dS' K
  HWY_ATTR void add_dq(const Tile& at, const Rows& rows, Mat<const T> keys, bool overwrite,
                       int thread) const {
    const Mat<T> dq = dq_.head(at.b(), at.h).row_block(at.queries.begin, at.queries.size());
    const T* ds = scratch_.piece(thread, kDs);
    if (!rows.finite) {
      if (overwrite) zero(dq, {0, dq.rows});
      add_seen_dq(dq, ds, keys, at);
      return;
    }
    for (Index c = 0; c < dq.cols; c += kPanel<T>) {
      const T* k = scratch_.piece(thread, kK) + c * at.keys.size();
      const Index width = std::min(kPanel<T>, dq.cols - c);
      for_row_blocks(dq.rows, [&](Index m, auto size) HWY_ATTR {
        constexpr Index kRows = size();
        Accumulators<T, kRows> sum;
        sum.clear();
        const Range all = at.sequence->keys_of(Range{at.queries.begin + m, at.queries.begin + m + kRows});
        const Range seen = {at.local(all.begin), at.local(all.end)};
        for (Index j = seen.begin, n; j < seen.end; j += n) {  // panel by panel
          const Index panel = j / kPanel<T>, first = j % kPanel<T>;
          n = std::min(kPanel<T> - first, seen.end - j);
          sum.add_product(Natural<T>{ds + panel * panel_size() + m * kPanel<T> + first, kPanel<T>},
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

  void add_seen_dq(Mat<T> dq, const T* ds, Mat<const T> k, const Tile& at) const {
    for (Index i = 0; i < dq.rows; ++i) {
      for (Index j = 0; j < at.keys.size(); ++j) {
        if (!problem_.sees(*at.sequence, at.h, at.queries.begin + i, at.keys.begin + j)) continue;
        const T w = ds[j / kPanel<T> * panel_size() + i * kPanel<T> + j % kPanel<T>];
        for (Index c = 0; c < dq.cols; ++c) dq(i, c) += w * k(j, c);
      }
    }
  }

  void add_dbias(const T* ds, const Tile& at) const {
    for (Index i = 0; i < at.queries.size(); ++i) {
      T* to = grads_.dbias.row(at.b(), at.h, at.queries.begin + i) + at.keys.begin;
      for (Index j = 0; j < at.keys.size(); ++j) to[j] += ds[i * kPanel<T> + j];
    }
  }

  // Heads and batch rows that share a slice of dbias add to a block of its keys in the order of (b, h).
  struct BiasTurn {
    Index place, turn;
  };
  BiasTurn bias_turn(const Sequence& s, Index h, const Block& block) const {
    const bool over_b = grads_.dbias.stride_b == 0, over_h = grads_.dbias.stride_h == 0;
    const Index slice = (over_b ? 0 : s.b * problem_.heads) + (over_h ? 0 : h);
    const Index before = over_b ? rows_with_block(s.b, block.number) : 0;
    const Index turn = before * (over_h ? problem_.heads : 1) + (over_h ? h : 0);
    const Index number = problem_.in.cu_k.empty() ? block.number : block.first + block.number;
    return {slice * bias_places_ + number, turn};
  }
  // Batch rows before b whose keys reach into block `number`.
  Index rows_with_block(Index b, Index number) const {
    return std::count_if(problem_.sequences.begin(), problem_.sequences.end(),
                         [&](const Sequence& s) { return s.b < b && number * tile_.keys < s.tk; });
  }
  void begin_dbias(const Sequence& s, Index h, const Block& block) const {
    const BiasTurn t = bias_turn(s, h, block);
    bias_turns_.wait(t.place, t.turn);
  }
  void end_dbias(const Sequence& s, Index h, const Block& block) {
    const BiasTurn t = bias_turn(s, h, block);
    bias_turns_.pass(t.place, t.turn);
  }

  AttentionGrads<S> grads_;
  HeadsView<const S> dout_, out_;
  std::span<const T> lse_, dlse_;
  const AttentionProblem<S>& problem_;
  bool plain_;
  TileSizes tile_;
  Index panels_;  // in a block of keys
  std::vector<Block> query_blocks_, key_blocks_;
  std::vector<Index> first_query_block_;  // of each sequence
  std::vector<Task> tasks_;
  Turns query_turns_;
  Index bias_places_;  // blocks of keys of one slice of dbias
  Turns bias_turns_;
  memory::Block delta_block_;
  T* delta_;  // (B, Hq, Tq)
  memory::Block dq_block_;
  HeadsView<T> dq_;  // where dQ is summed
  Write write_q_;
  Scratch<T> scratch_;
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
