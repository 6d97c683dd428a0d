#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <vector>

#include "base/memory.h"
#include "kernels/attention.h"
#include "kernels/gemm.h"
#include "kernels/parallel.h"
#include "kernels/rows.h"

/// What naive and flash attention share: which keys a query sees, which probabilities dropout keeps, products
/// with a tile of which only a part is seen, and scratch memory. Private to kernels/.
namespace tilegrad::kernels {

inline Index ceil_div(Index n, Index d) { return (n + d - 1) / d; }

/// A query head, and the key/value head that it reads.
struct Head {
  Index b, h, hkv;
  Index bh;  // b Hq + h: its place in lse (B, Hq, Tq)
};

/// The sizes and settings of one call.
struct AttentionProblem {
  Index batch, tq, tk, heads, kv_heads;
  double scale;
  bool causal;
  Index offset;  // query i sees keys j ≤ i + offset if causal
  double dropout;
  RandomKey dropout_key;

  template <class T>
  AttentionProblem(const AttentionInputs<T>& in, const AttentionOptions& options)
      : batch(in.q.batch),
        tq(in.q.time),
        tk(in.k.time),
        heads(in.q.heads),
        kv_heads(in.k.heads),
        scale(options.scale.value_or(1 / std::sqrt(static_cast<double>(in.q.dim)))),
        causal(options.causal),
        offset(options.align == Align::bottom_right ? tk - tq : 0),
        dropout(options.dropout),
        dropout_key(options.dropout_key) {
    assert(in.k.dim == in.q.dim && in.v.time == tk && in.v.heads == kv_heads);
    assert(in.k.batch == batch && in.v.batch == batch && heads % kv_heads == 0);
  }

  /// Query heads that share a key/value head.
  Index group() const { return heads / kv_heads; }
  Head head(Index bh) const { return {bh / heads, bh % heads, bh % heads / group(), bh}; }

  /// Query i sees the keys [0, visible(i)); later queries see no fewer.
  Index visible(Index i) const { return causal ? std::clamp<Index>(i + offset + 1, 0, tk) : tk; }
  /// Key j is seen by the queries [first_query(j), tq).
  Index first_query(Index j) const { return causal ? std::clamp<Index>(j - offset, 0, tq) : 0; }
};

/// A block of the score matrix of one head: queries [q0, q0 + nq), keys [k0, k0 + nk).
struct Tile {
  Index q0, nq, k0, nk;

  /// Row i of the tile sees its columns [0, visible(p, i)).
  Index visible(const AttentionProblem& p, Index i) const {
    return std::clamp<Index>(p.visible(q0 + i) - k0, 0, nk);
  }
  /// Column j of the tile is seen by its rows [first_row(p, j), nq).
  Index first_row(const AttentionProblem& p, Index j) const {
    return std::clamp<Index>(p.first_query(k0 + j) - q0, 0, nq);
  }
};

/// How flash cuts the score matrix of a head: queries and keys in one tile.
struct Tiling {
  Index queries, keys;

  Tiling(const AttentionProblem& p, const TileSizes& wanted)
      : queries(std::min(wanted.queries > 0 ? wanted.queries : kQueries, p.tq)),
        keys(std::min(wanted.keys > 0 ? wanted.keys : kKeys, p.tk)) {}

 private:
  static constexpr Index kQueries = 64;
  static constexpr Index kKeys = 128;
};

/// Memory for the tasks of one call: each thread has pieces of the given numbers of elements, which all begin
/// at a multiple of 64 bytes.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::initializer_list<Index> pieces)
      : offsets_(offsets_of(pieces)),
        block_(threads() * offsets_.back() * static_cast<Index>(sizeof(T)), memory::Category::workspace) {}

  T* piece(int thread, std::size_t index) const {
    return reinterpret_cast<T*>(block_.data()) + thread * offsets_.back() + offsets_[index];
  }

 private:
  static std::vector<Index> offsets_of(std::initializer_list<Index> pieces) {
    constexpr Index kLine = 64 / sizeof(T);
    std::vector<Index> offsets = {0};
    for (const Index n : pieces) offsets.push_back(offsets.back() + ceil_div(n, kLine) * kLine);
    return offsets;
  }

  std::vector<Index> offsets_;  // of every piece, and of the next thread's first
  memory::Block block_;
};

/// Multiplies a tile of head bh by the dropout mask M: element (b, h, i, j) of M is 1/(1 − p) if word j % 4
/// of the key's words at counter (j / 4, (b Hq + h) Tq + i) is at least p 2³², and else 0. Nothing but the
/// key and the place decides, so both kernels and both passes draw the same mask, whatever their tiles.
template <class T>
void apply_dropout(Mat<T> tile, const Tile& at, Index bh, const AttentionProblem& p) {
  if (p.dropout == 0) return;
  const T factor = static_cast<T>(1 / (1 - p.dropout));
  const auto threshold = static_cast<std::uint64_t>(p.dropout * 0x1.0p32);
  for (Index i = 0; i < at.nq; ++i) {
    const auto row = static_cast<std::uint64_t>(bh * p.tq + at.q0 + i);
    std::array<std::uint32_t, 4> words{};
    for (Index j = 0; j < at.nk; ++j) {
      const Index key = at.k0 + j;
      if (j == 0 || key % 4 == 0) words = p.dropout_key.words(static_cast<std::uint64_t>(key / 4), row);
      const bool kept = words[static_cast<std::size_t>(key % 4)] >= threshold;
      tile(i, j) = kept ? factor * tile(i, j) : T{0};
    }
  }
}

/// Whether x holds neither NaN nor Inf.
template <class T>
bool finite(Mat<const T> x) {
  bool all = true;
  for (Index i = 0; i < x.rows; ++i) {
    for (Index j = 0; j < x.cols; ++j) all &= std::abs(x(i, j)) <= std::numeric_limits<T>::max();
  }
  return all;
}

/// c = beta c + w x, where w is a tile of probabilities or of score gradients (nq, nk), 0 where a query does
/// not see a key, and x has a row for each key.
///
/// The zero must hide that row of x, but 0 · NaN is NaN. So if a key that some queries see and others do not
/// has a NaN or Inf, each query is multiplied on its own, by the keys that it sees. That is slow, and rare.
template <class T>
void multiply_seen(Mat<T> c, std::type_identity_t<Mat<const T>> w, std::type_identity_t<Mat<const T>> x,
                   std::type_identity_t<T> beta, const Tile& at, const AttentionProblem& p) {
  const Index seen_by_all = at.visible(p, 0);
  if (finite<T>(x.row_block(seen_by_all, at.nk - seen_by_all))) {
    gemm_serial<T>(c, T{1}, w, Op::none, x, Op::none, beta);
    return;
  }
  for (Index i = 0; i < at.nq; ++i) {
    const Index seen = at.visible(p, i);
    gemm_serial<T>(c.row_block(i, 1), T{1}, w.row_block(i, 1).col_block(0, seen), Op::none,
                   x.row_block(0, seen), Op::none, beta);
  }
}

/// c = beta c + wᵀ x, where x has a row for each query: in the same manner, if a query that sees a part of
/// the keys has a NaN or Inf, each key is multiplied by the queries that see it.
template <class T>
void multiply_seen_transposed(Mat<T> c, std::type_identity_t<Mat<const T>> w,
                              std::type_identity_t<Mat<const T>> x, std::type_identity_t<T> beta,
                              const Tile& at, const AttentionProblem& p) {
  if (at.nk == 0) return;
  const Index see_a_part = at.first_row(p, at.nk - 1);
  if (finite<T>(x.row_block(0, see_a_part))) {
    gemm_serial<T>(c, T{1}, w, Op::transpose, x, Op::none, beta);
    return;
  }
  for (Index j = 0; j < at.nk; ++j) {
    const Index first = at.first_row(p, j), n = at.nq - first;
    gemm_serial<T>(c.row_block(j, 1), T{1}, w.col_block(j, 1).row_block(first, n), Op::transpose,
                   x.row_block(first, n), Op::none, beta);
  }
}

/// What to subtract from scores with this maximum before exp takes them. It is the maximum, so that exp does
/// not overflow; but if all scores are −inf it is 0, because −inf − (−inf) is NaN and they count for nothing.
template <class T>
T softmax_shift(T max) {
  return max == -std::numeric_limits<T>::infinity() ? T{0} : max;
}

/// dS = P ⊙ (dP − delta) scale for one row, in place of dP, and 0 for the keys behind the `seen` ones.
template <class T>
void score_gradient_row(T* dp, const T* p, Index seen, Index n, T delta, T scale) {
  for (Index j = 0; j < seen; ++j) dp[j] = p[j] * (dp[j] - delta) * scale;
  std::fill(dp + seen, dp + n, T{0});
}

}  // namespace tilegrad::kernels
