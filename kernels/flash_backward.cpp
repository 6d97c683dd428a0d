// Flash attention, backward (T. Dao et al., "FlashAttention", 2022; T. Dao, "FlashAttention-2", 2023).
//
// Forward was, for one head:
//   S = scale Q Kᵀ,   P = exp(S − LSE),   O = (P ⊙ M) V,
// with M the dropout mask, all ones if there is no dropout. Given dO:
//   O = (P ⊙ M) V      gives   dV = (P ⊙ M)ᵀ dO   and   dP = (dO Vᵀ) ⊙ M.
//   p = softmax(s)     has     ∂p_j/∂s_k = p_j ([j = k] − p_k), for each row, so
//                              ds_j = Σ_k dp_k ∂p_k/∂s_j = p_j (dp_j − Σ_k p_k dp_k).
// The sum runs over the whole row, which no tile sees. But it is known before any tile is:
//   Σ_k p_k dp_k = Σ_k p_k m_k ⟨do, v_k⟩ = ⟨do, Σ_k p_k m_k v_k⟩ = ⟨do, o⟩ =: delta.
// So every tile stands alone. It recomputes S and P, because that is cheaper than to keep them:
//   P = exp(S − LSE),   dP = (dO Vᵀ) ⊙ M,   dS = P ⊙ (dP − delta) scale,
//   S = scale Q Kᵀ     gives   dQ += dS K   and   dK += dSᵀ Q.
//
// dK and dV sum over queries, dQ sums over keys. Tasks that each own some rows of one of them need no locks
// and add in a fixed order, so two passes walk over the tiles: one for dK and dV, one for dQ. This costs
// seven products for each tile instead of five, and is parallel even within one head.
#include "kernels/attention_tile.h"

namespace tilegrad::kernels {

namespace {

template <class T>
class FlashBackward {
 public:
  FlashBackward(const AttentionGrads<T>& grads, Heads<const T> dout, const AttentionInputs<T>& in,
                Heads<const T> out, const T* lse, const AttentionOptions& options)
      : grads_(grads),
        dout_(dout),
        in_(in),
        out_(out),
        lse_(lse),
        problem_(in, options),
        tiling_(problem_, options.tiles),
        delta_block_(problem_.batch * problem_.heads * problem_.tq * static_cast<Index>(sizeof(T)),
                     memory::Category::workspace),
        delta_(reinterpret_cast<T*>(delta_block_.data())),
        scratch_({tiling_.queries * tiling_.keys, tiling_.queries * tiling_.keys}) {}

  void run() {
    compute_delta();
    if (grads_.dk.data != nullptr || grads_.dv.data != nullptr) compute_dk_dv();
    if (grads_.dq.data != nullptr) compute_dq();
  }

 private:
  // What a tile of one query head reads.
  struct Rows {
    Mat<const T> q, dout;  // (nq, D), (nq, Dv)
    Mat<const T> k, v;     // (nk, D), (nk, Dv)
    const T* lse;          // (nq)
    const T* delta;        // (nq)
  };
  Rows rows(const Head& head, const Tile& at) const {
    const Index row = head.bh * problem_.tq + at.q0;
    return {.q = in_.q.head(head.b, head.h).row_block(at.q0, at.nq),
            .dout = dout_.head(head.b, head.h).row_block(at.q0, at.nq),
            .k = in_.k.head(head.b, head.hkv).row_block(at.k0, at.nk),
            .v = in_.v.head(head.b, head.hkv).row_block(at.k0, at.nk),
            .lse = lse_ + row,
            .delta = delta_ + row};
  }

  // delta = rowsum(dO ⊙ O)
  void compute_delta() {
    parallel_tasks(problem_.batch * problem_.heads, [&](Index bh, int) {
      const Head head = problem_.head(bh);
      const auto o = out_.head(head.b, head.h), dout = dout_.head(head.b, head.h);
      for (Index i = 0; i < problem_.tq; ++i)
        delta_[bh * problem_.tq + i] = row_dot<T>(o.cols, dout.row(i), o.row(i));
    });
  }

  // A task owns the rows of dK and dV of one block of keys. The group's query heads, and their queries that
  // see any of these keys, add to them one after the other.
  void compute_dk_dv() {
    const Index kv_heads = problem_.batch * problem_.kv_heads;
    parallel_tasks(kv_heads * ceil_div(problem_.tk, tiling_.keys), [&](Index task, int thread) {
      // The first keys are seen by most queries, so their blocks begin.
      const Index first_bh = task % kv_heads * problem_.group(), k0 = task / kv_heads * tiling_.keys;
      const Index nk = std::min(tiling_.keys, problem_.tk - k0), first_query = problem_.first_query(k0);
      const Head first_head = problem_.head(first_bh);
      start(grads_.dk, grads_.write_k, first_head.b, first_head.hkv, k0, nk);
      start(grads_.dv, grads_.write_v, first_head.b, first_head.hkv, k0, nk);
      for (Index bh = first_bh; bh < first_bh + problem_.group(); ++bh) {
        for (Index q0 = first_query; q0 < problem_.tq; q0 += tiling_.queries) {
          const Index nq = std::min(tiling_.queries, problem_.tq - q0);
          add_to_dk_dv(problem_.head(bh), {.q0 = q0, .nq = nq, .k0 = k0, .nk = nk}, thread);
        }
      }
    });
  }

  void add_to_dk_dv(const Head& head, const Tile& at, int thread) {
    const Rows r = rows(head, at);
    const Mat<T> p = probabilities(r, at, thread);
    if (grads_.dk.data != nullptr) {
      const Mat<T> ds = score_gradients(r, p, head, at, thread);
      // forward: S = scale Q Kᵀ
      multiply_seen_transposed<T>(grads_.dk.head(head.b, head.hkv).row_block(at.k0, at.nk), ds, r.q, T{1}, at,
                                  problem_);
    }
    if (grads_.dv.data != nullptr) {
      apply_dropout(p, at, head.bh, problem_);
      // forward: O = (P ⊙ M) V
      multiply_seen_transposed<T>(grads_.dv.head(head.b, head.hkv).row_block(at.k0, at.nk), p, r.dout, T{1},
                                  at, problem_);
    }
  }

  // A task owns the rows of dQ of one block of queries, and walks over the keys that they see.
  void compute_dq() {
    const Index heads = problem_.batch * problem_.heads, blocks = ceil_div(problem_.tq, tiling_.queries);
    parallel_tasks(heads * blocks, [&](Index task, int thread) {
      const Head head = problem_.head(task % heads);
      const Index q0 = (blocks - 1 - task / heads) * tiling_.queries;
      const Index nq = std::min(tiling_.queries, problem_.tq - q0), seen = problem_.visible(q0 + nq - 1);
      start(grads_.dq, grads_.write_q, head.b, head.h, q0, nq);
      for (Index k0 = 0; k0 < seen; k0 += tiling_.keys) {
        const Tile at = {.q0 = q0, .nq = nq, .k0 = k0, .nk = std::min(tiling_.keys, seen - k0)};
        const Rows r = rows(head, at);
        const Mat<T> p = probabilities(r, at, thread);
        const Mat<T> ds = score_gradients(r, p, head, at, thread);
        // forward: S = scale Q Kᵀ
        multiply_seen<T>(grads_.dq.head(head.b, head.h).row_block(q0, nq), ds, r.k, T{1}, at, problem_);
      }
    });
  }

  // P = exp(S − LSE), 0 where not seen.
  Mat<T> probabilities(const Rows& r, const Tile& at, int thread) const {
    const Mat<T> p(scratch_.piece(thread, 0), at.nq, at.nk);
    gemm_serial<T>(p, static_cast<T>(problem_.scale), r.q, Op::none, r.k, Op::transpose, T{0});
    for (Index i = 0; i < at.nq; ++i) {
      const Index seen = at.visible(problem_, i);
      row_exp<T>(p.row(i), seen, p.row(i), r.lse[i]);
      std::fill(p.row(i) + seen, p.row(i) + at.nk, T{0});
    }
    return p;
  }

  // dP = (dO Vᵀ) ⊙ M, then dS = P ⊙ (dP − delta) scale.
  Mat<T> score_gradients(const Rows& r, Mat<const T> p, const Head& head, const Tile& at, int thread) const {
    const Mat<T> ds(scratch_.piece(thread, 1), at.nq, at.nk);
    gemm_serial<T>(ds, T{1}, r.dout, Op::none, r.v, Op::transpose, T{0});
    apply_dropout(ds, at, head.bh, problem_);
    for (Index i = 0; i < at.nq; ++i) {
      score_gradient_row<T>(ds.row(i), p.row(i), at.visible(problem_, i), at.nk, r.delta[i],
                            static_cast<T>(problem_.scale));
    }
    return ds;
  }

  // Zeroes rows that are to be overwritten, so that every tile can add to them.
  static void start(const Heads<T>& grad, Write write, Index b, Index h, Index first, Index n) {
    if (grad.data == nullptr || write == Write::accumulate) return;
    for (Index i = first; i < first + n; ++i) std::fill_n(grad.head(b, h).row(i), grad.dim, T{0});
  }

  AttentionGrads<T> grads_;
  Heads<const T> dout_;
  AttentionInputs<T> in_;
  Heads<const T> out_;
  const T* lse_;
  AttentionProblem problem_;
  Tiling tiling_;
  memory::Block delta_block_;
  T* delta_;  // (B, Hq, Tq)
  Scratch<T> scratch_;
};

}  // namespace

template <class T>
void flash_attention_backward(const AttentionGrads<T>& grads, std::type_identity_t<Heads<const T>> dout,
                              const AttentionInputs<T>& in, std::type_identity_t<Heads<const T>> out,
                              std::span<const std::type_identity_t<T>> lse, const AttentionOptions& options) {
  FlashBackward<T>(grads, dout, in, out, lse.data(), options).run();
}

#define TILEGRAD_INSTANTIATE(T)                                                                            \
  template void flash_attention_backward<T>(const AttentionGrads<T>&, Heads<const T>,                      \
                                            const AttentionInputs<T>&, Heads<const T>, std::span<const T>, \
                                            const AttentionOptions&);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels
