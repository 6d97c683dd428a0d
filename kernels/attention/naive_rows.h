#pragma once

#include "tilegrad/kernels/attention/problem.h"
#include "tilegrad/kernels/attention/row_ops.h"
#include "tilegrad/kernels/attention/workspace.h"
#include "tilegrad/kernels/dropout.h"
#include "tilegrad/kernels/gemm.h"

/// What both passes of naive attention share: blocks of query rows, masks, dropout. Private to kernels/.
namespace tilegrad::kernels {

/// Query rows in one block.
inline constexpr Index kRows = 64;

/// A block of query rows of one head, and the keys that any of them sees.
struct RowBlock {
  const Sequence* sequence;
  Index h, hkv;
  Range queries, keys;

  Index b() const { return sequence->b; }
};

/// The base of both passes.
template <class T>
class NaiveAttention {
 public:
  NaiveAttention(const AttentionInputs<T>& in, const AttentionOptions& options)
      : problem_(in, options), blocks_(tiles_of(problem_.sequences, &Sequence::queries, kRows)) {}

 protected:
  using Problem = AttentionProblem<T>;

  RowBlock row_block(Index number, Index h) const {
    const SequenceTile& block = blocks_[number];
    const Sequence& s = problem_.sequences[block.sequence];
    Range keys = s.keys_of(block.rows);
    keys.end = std::max(keys.begin, keys.end);
    return {&s, h, h / problem_.group_size(), block.rows, keys};
  }
  static Mat<const T> queries(const HeadsView<const T>& x, const RowBlock& tile) {
    return x.head(tile.b(), tile.h).row_block(tile.queries.begin, tile.queries.size());
  }
  static Mat<const T> keys(const HeadsView<const T>& x, const RowBlock& tile) {
    return x.head(tile.b(), tile.hkv).row_block(tile.keys.begin, tile.keys.size());
  }
  // The columns of p (B, Hq, Tq, Tk) that belong to the block.
  template <class U>
  Mat<U> part(std::span<U> p, const RowBlock& tile) const {
    return {p.data() + problem_.row(tile.b(), tile.h, tile.queries.begin) * problem_.tk + tile.keys.begin,
            tile.queries.size(), tile.keys.size(), problem_.tk};
  }

  // What the scores are before softcap: scale Q Kᵀ.
  void products(Mat<T> s, const RowBlock& tile) const {
    gemm_serial<T>(s, static_cast<T>(problem_.scale), queries(problem_.in.q, tile), Op::none,
                   keys(problem_.in.k, tile), Op::transpose, T{0});
  }

  // Hidden keys get `value`.
  void mask_out(T* row, Index i, const RowBlock& tile, T value) const {
    const Range seen = tile.sequence->keys_of(i);
    const Index begin = std::clamp(seen.begin, tile.keys.begin, tile.keys.end) - tile.keys.begin;
    const Index end = std::clamp(seen.end, begin + tile.keys.begin, tile.keys.end) - tile.keys.begin;
    std::fill(row, row + begin, value);
    std::fill(row + end, row + tile.keys.size(), value);
    if (!problem_.in.mask) return;
    const std::uint8_t* mask = problem_.in.mask.row(tile.b(), tile.h, i) + tile.keys.begin;
    for (Index j = begin; j < end; ++j) row[j] = mask[j] != 0 ? row[j] : value;
  }

  bool has_masked_pairs(const RowBlock& tile) const {
    return problem_.in.mask || !tile.sequence->fully_visible(tile.queries, tile.keys);
  }
  static bool finite(Mat<const T> x) {
    bool all = true;
    for (Index r = 0; r < x.rows; ++r) {
      for (Index c = 0; c < x.cols; ++c) all &= std::abs(x(r, c)) <= std::numeric_limits<T>::max();
    }
    return all;
  }

  // c = w x + beta c, where w (nq, nk) is 0 for keys that a query does not see. If x has a NaN or Inf that
  // only some queries see, that zero does not hide it, and each pair is added on its own.
  void multiply(Mat<T> c, Mat<const T> w, Mat<const T> x, T beta, const RowBlock& tile) const {
    if (!has_masked_pairs(tile) || finite(x)) {
      gemm_serial<T>(c, T{1}, w, Op::none, x, Op::none, beta);
      return;
    }
    for (Index i = 0; i < c.rows; ++i) {
      for (Index d = 0; d < c.cols; ++d) c(i, d) = beta == 0 ? T{0} : c(i, d);
      for (Index j = 0; j < x.rows; ++j) {
        if (!problem_.visible(*tile.sequence, tile.h, tile.queries.begin + i, tile.keys.begin + j)) continue;
        for (Index d = 0; d < c.cols; ++d) c(i, d) += w(i, j) * x(j, d);
      }
    }
  }
  // c += wᵀ x in the same manner; x has a row for each query.
  void add_transposed(Mat<T> c, Mat<const T> w, Mat<const T> x, const RowBlock& tile) const {
    if (!has_masked_pairs(tile) || finite(x)) {
      gemm_serial<T>(c, T{1}, w, Op::transpose, x, Op::none, T{1});
      return;
    }
    for (Index i = 0; i < x.rows; ++i) {
      for (Index j = 0; j < c.rows; ++j) {
        if (!problem_.visible(*tile.sequence, tile.h, tile.queries.begin + i, tile.keys.begin + j)) continue;
        for (Index d = 0; d < c.cols; ++d) c(j, d) += w(i, j) * x(i, d);
      }
    }
  }

  // row ⊙ M for query i.
  void drop(T* row, T* factors, Index i, const RowBlock& tile) const {
    dropout_factors(factors, tile.keys.begin, tile.keys.size(), problem_.row(tile.b(), tile.h, i),
                    problem_.options.dropout, problem_.options.dropout_key);
    for (Index j = 0; j < tile.keys.size(); ++j) row[j] *= factors[j];
  }
  // P ⊙ M in `memory`, or P itself if there is no dropout.
  Mat<const T> dropped(Mat<const T> p, T* memory, T* factors, const RowBlock& tile) const {
    if (problem_.options.dropout == 0) return p;
    const Mat<T> copy(memory, p.rows, p.cols);
    for (Index i = 0; i < p.rows; ++i) {
      std::copy_n(p.row(i), p.cols, copy.row(i));
      drop(copy.row(i), factors, tile.queries.begin + i, tile);
    }
    return copy;
  }

  Problem problem_;
  std::vector<SequenceTile> blocks_;
};

}  // namespace tilegrad::kernels
