// Flash attention, forward (T. Dao et al., "FlashAttention", 2022; T. Dao, "FlashAttention-2", 2023).
//
// For one query with scores s_1 ... s_n, the output is o = Σ_j e^{s_j} v_j / Σ_j e^{s_j}. It is enough to
// read the keys once, tile by tile, and to keep three things about the tiles read so far:
//   m = max_j s_j,   l = Σ_j e^{s_j − m},   a = Σ_j e^{s_j − m} v_j.
// The next tile, with scores s'_j and values v'_j, raises the maximum to m' = max(m, max_j s'_j). What was
// summed relative to m becomes relative to m' by one factor, α = e^{m − m'}:
//   l ← α l + Σ_j e^{s'_j − m'},   a ← α a + Σ_j e^{s'_j − m'} v'_j.
// After the last tile o = a / l: one division, at the end. LSE = m + log l = log Σ_j e^{s_j} is all that
// backward needs to know of the softmax, because p_j = e^{s_j} / Σ_k e^{s_k} = e^{s_j − LSE}.
//
// Dropout acts on the probabilities, so a sums only the kept e^{s_j − m} v_j while l sums them all.
#include "kernels/attention_tile.h"

namespace tilegrad::kernels {

namespace {

// m, l and a of a block of queries.
template <class T>
struct OnlineSoftmax {
  T* max;      // (nq)
  T* sum;      // (nq)
  Mat<T> acc;  // (nq, Dv)

  void reset() const {
    std::fill_n(max, acc.rows, -std::numeric_limits<T>::infinity());
    std::fill_n(sum, acc.rows, T{0});
    std::fill_n(acc.data, acc.rows * acc.cols, T{0});
  }

  // Reads a tile's scores of row i, of which the first `seen` count, leaves e^{s − m'} in their place, and
  // makes l and a relative to m'.
  void absorb(Index i, T* scores, Index seen, Index n) const {
    std::fill(scores + seen, scores + n, T{0});
    if (seen == 0) return;
    const T new_max = std::max(max[i], row_max<T>(seen, scores));
    const T alpha = std::exp(max[i] - softmax_shift(new_max));
    sum[i] = alpha * sum[i] + row_exp<T>(scores, seen, scores, softmax_shift(new_max));
    row_scale<T>(acc.row(i), acc.cols, alpha);
    max[i] = new_max;
  }

  // o = a / l and LSE = m + log l. Backward takes exp of LSE, so it is rounded once only.
  void finish(Index i, T* out, T* lse) const {
    *lse = static_cast<T>(max[i] + std::log(static_cast<double>(sum[i])));
    for (Index d = 0; d < acc.cols; ++d) out[d] = acc(i, d) / sum[i];
  }
};

}  // namespace

template <class T>
void flash_attention(Heads<T> out, std::span<T> lse, const AttentionInputs<T>& in,
                     const AttentionOptions& options) {
  const AttentionProblem problem(in, options);
  const Tiling tiling(problem, options.tiles);
  const Index heads = problem.batch * problem.heads, blocks = ceil_div(problem.tq, tiling.queries);
  const Scratch<T> scratch(
      {tiling.queries, tiling.queries, tiling.queries * out.dim, tiling.queries * tiling.keys});
  parallel_tasks(heads * blocks, [&](Index task, int thread) {
    // Under a causal mask the last queries have the most to do. They begin, so that all threads end together.
    const Head head = problem.head(task % heads);
    const Index q0 = (blocks - 1 - task / heads) * tiling.queries;
    const Index nq = std::min(tiling.queries, problem.tq - q0);
    const auto q = in.q.head(head.b, head.h).row_block(q0, nq);
    const auto k = in.k.head(head.b, head.hkv), v = in.v.head(head.b, head.hkv);

    const OnlineSoftmax<T> state = {.max = scratch.piece(thread, 0),
                                    .sum = scratch.piece(thread, 1),
                                    .acc = Mat<T>(scratch.piece(thread, 2), nq, out.dim)};
    state.reset();
    const Index seen = problem.visible(q0 + nq - 1);  // no query of the block sees a key behind these
    for (Index k0 = 0; k0 < seen; k0 += tiling.keys) {
      const Tile at = {.q0 = q0, .nq = nq, .k0 = k0, .nk = std::min(tiling.keys, seen - k0)};
      const Mat<T> s(scratch.piece(thread, 3), at.nq, at.nk);
      gemm_serial<T>(s, static_cast<T>(problem.scale), q, Op::none, k.row_block(k0, at.nk), Op::transpose,
                     T{0});
      for (Index i = 0; i < nq; ++i) state.absorb(i, s.row(i), at.visible(problem, i), at.nk);
      apply_dropout(s, at, head.bh, problem);
      multiply_seen<T>(state.acc, s, v.row_block(k0, at.nk), T{1}, at, problem);
    }

    const auto out_rows = out.head(head.b, head.h).row_block(q0, nq);
    T* lse_rows = lse.data() + head.bh * problem.tq + q0;
    for (Index i = 0; i < nq; ++i) {
      state.finish(i, out_rows.row(i), lse_rows + i);
      if (problem.visible(q0 + i) == 0) std::fill_n(out_rows.row(i), out.dim, T{0});  // not 0 / 0
    }
  });
}

template void flash_attention<float>(Heads<float>, std::span<float>, const AttentionInputs<float>&,
                                     const AttentionOptions&);
template void flash_attention<double>(Heads<double>, std::span<double>, const AttentionInputs<double>&,
                                      const AttentionOptions&);

}  // namespace tilegrad::kernels
