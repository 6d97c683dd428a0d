// Attention as it is written on paper: all scores, their softmax, the product with V. A task takes a block of
// query rows of one head, so the products are large enough for OpenBLAS and the rows still lie in the cache
// when the softmax reads them.
#include "kernels/attention_tile.h"

namespace tilegrad::kernels {

namespace {

constexpr Index kRows = 64;  // query rows in one block

// A block of query rows against all keys that its last row, and so any row, sees.
Tile row_tile(const AttentionProblem& problem, Index q0) {
  const Index nq = std::min(kRows, problem.tq - q0);
  return {.q0 = q0, .nq = nq, .k0 = 0, .nk = problem.visible(q0 + nq - 1)};
}

// P (nq, Tk) of one block.
template <class T>
Mat<T> rows_of(std::span<T> p, const AttentionProblem& problem, const Head& head, const Tile& at) {
  return {p.data() + (head.bh * problem.tq + at.q0) * problem.tk, at.nq, problem.tk};
}

// S = scale Q Kᵀ, then P = softmax(S) and LSE by rows.
template <class T>
void probabilities(Mat<T> p, T* lse, Mat<const T> q, Mat<const T> k, const Tile& at,
                   const AttentionProblem& problem) {
  gemm_serial<T>(p.col_block(0, at.nk), static_cast<T>(problem.scale), q, Op::none, k.row_block(0, at.nk),
                 Op::transpose, T{0});
  for (Index i = 0; i < at.nq; ++i) {
    const Index seen = at.visible(problem, i);
    T* row = p.row(i);
    const T max = row_max<T>(seen, row), sum = row_exp<T>(row, seen, row, softmax_shift(max));
    lse[i] = max + std::log(sum);  // −inf + log 0 = −inf for a row that sees nothing
    row_scale<T>(row, seen, 1 / sum);
    std::fill(row + seen, row + p.cols, T{0});
  }
}

// P with dropout applied; P itself if there is none, else a copy in `memory`.
template <class T>
Mat<const T> dropped(Mat<const T> p, T* memory, const Head& head, const Tile& at,
                     const AttentionProblem& problem) {
  if (problem.dropout == 0) return p;
  const Mat<T> copy(memory, at.nq, at.nk);
  for (Index i = 0; i < at.nq; ++i) std::copy_n(p.row(i), at.nk, copy.row(i));
  apply_dropout(copy, at, head.bh, problem);
  return copy;
}

}  // namespace

template <class T>
void naive_attention(Heads<T> out, std::span<T> lse, std::span<T> p, const AttentionInputs<T>& in,
                     const AttentionOptions& options) {
  const AttentionProblem problem(in, options);
  const Index heads = problem.batch * problem.heads, blocks = ceil_div(problem.tq, kRows);
  const Scratch<T> scratch({problem.dropout > 0 ? kRows * problem.tk : 0});
  parallel_tasks(heads * blocks, [&](Index task, int thread) {
    const Head head = problem.head(task / blocks);
    const Tile at = row_tile(problem, task % blocks * kRows);
    const Mat<T> p_rows = rows_of(p, problem, head, at);
    probabilities<T>(p_rows, lse.data() + head.bh * problem.tq + at.q0,
                     in.q.head(head.b, head.h).row_block(at.q0, at.nq), in.k.head(head.b, head.hkv), at,
                     problem);
    multiply_seen<T>(out.head(head.b, head.h).row_block(at.q0, at.nq),
                     dropped<T>(p_rows.col_block(0, at.nk), scratch.piece(thread, 0), head, at, problem),
                     in.v.head(head.b, head.hkv).row_block(0, at.nk), T{0}, at, problem);
  });
}

namespace {

// Every query of every head in a group adds to the same dK and dV. To be parallel there, and still give the
// same bits on any number of threads, each head's queries are cut into chunks. The task of a chunk computes
// dQ of its rows, and its share of dK and dV in memory of its own. Then the shares are added in a fixed
// order.
template <class T>
class NaiveBackward {
 public:
  NaiveBackward(const AttentionGrads<T>& grads, Heads<const T> dout, const AttentionInputs<T>& in,
                std::span<const T> p, const AttentionOptions& options)
      : grads_(grads),
        dout_(dout),
        in_(in),
        p_(p),
        problem_(in, options),
        chunk_rows_(ceil_div(ceil_div(problem_.tq, ceil_div(kTasks, query_heads())), kRows) * kRows),
        chunks_(ceil_div(problem_.tq, chunk_rows_)),
        dk_shares_(allocate_shares(grads.dk)),
        dv_shares_(allocate_shares(grads.dv)),
        scratch_({kRows * problem_.tk, problem_.dropout > 0 ? kRows * problem_.tk : 0}) {}

  void run() {
    parallel_tasks(query_heads() * chunks_, [&](Index task, int thread) {
      const Index chunk = task % chunks_, begin = chunk * chunk_rows_;
      // From the last block to the first: the last one sees the most keys, and so begins the shares.
      const Index end = std::min(begin + chunk_rows_, problem_.tq);
      for (Index q0 = begin + (end - 1 - begin) / kRows * kRows; q0 >= begin; q0 -= kRows)
        block(problem_.head(task / chunks_), chunk, row_tile(problem_, q0), thread);
    });
    add_shares(grads_.dk, grads_.write_k, dk_shares_);
    add_shares(grads_.dv, grads_.write_v, dv_shares_);
  }

 private:
  static constexpr Index kTasks = 16;  // with fewer heads than that, a head has several chunks

  Index query_heads() const { return problem_.batch * problem_.heads; }
  Index chunk_end(Index chunk) const { return std::min((chunk + 1) * chunk_rows_, problem_.tq); }

  memory::Block allocate_shares(const Heads<T>& grad) const {
    if (grad.data == nullptr) return {};
    return {query_heads() * chunks_ * problem_.tk * grad.dim * static_cast<Index>(sizeof(T)),
            memory::Category::workspace};
  }
  // One chunk's share of a head's dK or dV (Tk, dim). Only the keys that the chunk sees are ever written.
  Mat<T> share(const memory::Block& shares, Index bh, Index chunk, Index dim) const {
    return {reinterpret_cast<T*>(shares.data()) + (bh * chunks_ + chunk) * problem_.tk * dim, problem_.tk,
            dim};
  }

  void block(const Head& head, Index chunk, const Tile& at, int thread) const {
    const Mat<const T> p = rows_of(p_, problem_, head, at).col_block(0, at.nk);
    const Mat<const T> dout = dout_.head(head.b, head.h).row_block(at.q0, at.nq);
    const bool last = at.q0 + at.nq == chunk_end(chunk);
    const T begin_or_add = last ? T{0} : T{1};
    if (grads_.dv.data != nullptr) {
      // forward: O = dropout(P) V
      multiply_seen_transposed<T>(share(dv_shares_, head.bh, chunk, grads_.dv.dim).row_block(0, at.nk),
                                  dropped<T>(p, scratch_.piece(thread, 1), head, at, problem_), dout,
                                  begin_or_add, at, problem_);
    }
    if (grads_.dq.data == nullptr && grads_.dk.data == nullptr) return;
    const Mat<T> ds(scratch_.piece(thread, 0), at.nq, at.nk);
    score_gradients(ds, p, dout, head, at);
    // forward: S = scale Q Kᵀ
    if (grads_.dq.data != nullptr) {
      multiply_seen<T>(grads_.dq.head(head.b, head.h).row_block(at.q0, at.nq), ds,
                       in_.k.head(head.b, head.hkv).row_block(0, at.nk),
                       grads_.write_q == Write::overwrite ? T{0} : T{1}, at, problem_);
    }
    if (grads_.dk.data != nullptr) {
      multiply_seen_transposed<T>(share(dk_shares_, head.bh, chunk, grads_.dk.dim).row_block(0, at.nk), ds,
                                  in_.q.head(head.b, head.h).row_block(at.q0, at.nq), begin_or_add, at,
                                  problem_);
    }
  }

  // forward: P = softmax(S), O = dropout(P) V
  void score_gradients(Mat<T> ds, Mat<const T> p, Mat<const T> dout, const Head& head, const Tile& at) const {
    const Mat<T> dp = ds;  // becomes dS in place
    gemm_serial<T>(dp, T{1}, dout, Op::none, in_.v.head(head.b, head.hkv).row_block(0, at.nk), Op::transpose,
                   T{0});
    apply_dropout(dp, at, head.bh, problem_);
    for (Index i = 0; i < at.nq; ++i) {
      const Index seen = at.visible(problem_, i);
      const T delta = row_dot<T>(seen, p.row(i), dp.row(i));
      score_gradient_row<T>(ds.row(i), p.row(i), seen, at.nk, delta, static_cast<T>(problem_.scale));
    }
  }

  // grad (+)= the shares of the group's heads and their chunks.
  void add_shares(const Heads<T>& grad, Write write, const memory::Block& shares) const {
    if (grad.data == nullptr) return;
    const Index blocks = ceil_div(problem_.tk, kRows);
    parallel_tasks(problem_.batch * problem_.kv_heads * blocks, [&](Index task, int) {
      const Index b = task / blocks / problem_.kv_heads, hkv = task / blocks % problem_.kv_heads;
      const Index first_bh = b * problem_.heads + hkv * problem_.group(), k0 = task % blocks * kRows;
      for (Index j = k0; j < std::min(k0 + kRows, problem_.tk); ++j) {
        T* row = grad.head(b, hkv).row(j);
        if (write == Write::overwrite) std::fill_n(row, grad.dim, T{0});
        for (Index bh = first_bh; bh < first_bh + problem_.group(); ++bh) {
          for (Index chunk = 0; chunk < chunks_; ++chunk) {
            if (j >= problem_.visible(chunk_end(chunk) - 1)) continue;
            const T* part = share(shares, bh, chunk, grad.dim).row(j);
            for (Index d = 0; d < grad.dim; ++d) row[d] += part[d];
          }
        }
      }
    });
  }

  AttentionGrads<T> grads_;
  Heads<const T> dout_;
  AttentionInputs<T> in_;
  std::span<const T> p_;
  AttentionProblem problem_;
  Index chunk_rows_, chunks_;  // query rows in a chunk, chunks of a head
  memory::Block dk_shares_, dv_shares_;
  Scratch<T> scratch_;
};

}  // namespace

template <class T>
void naive_attention_backward(const AttentionGrads<T>& grads, std::type_identity_t<Heads<const T>> dout,
                              const AttentionInputs<T>& in, std::span<const std::type_identity_t<T>> p,
                              const AttentionOptions& options) {
  NaiveBackward<T>(grads, dout, in, p, options).run();
}

#define TILEGRAD_INSTANTIATE(T)                                                                     \
  template void naive_attention<T>(Heads<T>, std::span<T>, std::span<T>, const AttentionInputs<T>&, \
                                   const AttentionOptions&);                                        \
  template void naive_attention_backward<T>(const AttentionGrads<T>&, Heads<const T>,               \
                                            const AttentionInputs<T>&, std::span<const T>,          \
                                            const AttentionOptions&);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels
