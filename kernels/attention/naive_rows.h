#pragma once

#include "tilegrad/kernels/attention/masked_products.h"
#include "tilegrad/kernels/attention/row_ops.h"
#include "tilegrad/kernels/attention/workspace.h"
#include "tilegrad/kernels/dropout.h"
#include "tilegrad/kernels/gemm.h"

/// What both passes of naive attention share: blocks of query rows, score mods, masks, dropout. Private to kernels/.
namespace tilegrad::kernels {

/// Query rows in one block.
inline constexpr Index kRows = 64;

/// A block of query rows of one head, and the keys that any of them sees.
struct RowBlock {
  const Sequence* sequence;
  Index h, hkv;
  Range queries, keys;

  Index b() const { return sequence->b; }
  Pairs pairs() const { return {sequence, h, queries, keys}; }
};

/// One problem, cut into blocks of query rows, and what both passes do with a block.
template <class T>
class NaiveRows {
 public:
  NaiveRows(const AttentionInputs<T>& in, const AttentionOptions& options)
      : problem(in, options), q_(in.q), k_(in.k) {
    blocks_ = tiles_of(problem.sequences, &Sequence::queries, kRows);
  }

  const AttentionProblem<T> problem;

  Index blocks() const { return std::ssize(blocks_); }
  RowBlock row_block(Index number, Index h) const {
    const SequenceTile& block = blocks_[number];
    const Sequence& s = problem.sequences[block.sequence];
    Range keys = s.keys_of(block.rows);
    keys.end = std::max(keys.begin, keys.end);
    return {&s, h, h / problem.group_size(), block.rows, keys};
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
    return {p.data() + problem.row(tile.b(), tile.h, tile.queries.begin) * problem.tk + tile.keys.begin,
            tile.queries.size(), tile.keys.size(), problem.tk};
  }

  // The scores before any score mod: scale Q Kᵀ.
  void products(Mat<T> s, const RowBlock& tile) const {
    const T scale = static_cast<T>(problem.scale);
    // A BLAS does not look at its factors if it is to multiply them by 0, and would swallow a NaN.
    gemm_serial<T>(s, scale == 0 ? T{1} : scale, queries(q_, tile), Op::none, keys(k_, tile), Op::transpose,
                   T{0});
    for (Index i = 0; scale == 0 && i < s.rows; ++i) row_scale<T>(s.row(i), s.cols, scale);
  }

  // The score mods on one row of scale Q Kᵀ: softcap, bias and ALiBi.
  void mod_scores(T* row, Index i, const RowBlock& tile) const {
    const Index n = tile.keys.size();
    if (problem.softcap > 0) {
      const T cap = static_cast<T>(problem.softcap);
      for (Index j = 0; j < n; ++j) row[j] = cap * std::tanh(row[j] / cap);
    }
    if (problem.bias) {
      const T* bias = problem.bias.row(tile.b(), tile.h, i) + tile.keys.begin;
      for (Index j = 0; j < n; ++j) row[j] += bias[j];
    }
    if (!problem.alibi.empty()) {
      const T slope = problem.alibi[tile.h];
      for (Index j = 0; j < n; ++j)
        row[j] -= slope * static_cast<T>(std::abs(i + tile.sequence->shift - tile.keys.begin - j));
    }
  }
  // Their backward, and that of the scale: dS becomes the gradient of Q Kᵀ. The softcap's derivative needs the products
  // again, for which there is memory in `again`.
  void mod_gradients(Mat<T> ds, Mat<T> again, const RowBlock& tile) const {
    const T scale = static_cast<T>(problem.scale), cap = static_cast<T>(problem.softcap);
    if (cap > 0) products(again, tile);
    for (Index i = 0; i < ds.rows; ++i) {
      for (Index j = 0; j < ds.cols; ++j) {
        // Products of a row that sees nothing may be NaN, but it has no gradients.
        const T t = cap > 0 && ds(i, j) != 0 ? std::tanh(again(i, j) / cap) : T{0};
        ds(i, j) *= scale * (1 - t * t);
      }
      mask_out(ds.row(i), tile.queries.begin + i, tile, T{0});
    }
  }

  // Masked keys get `value`.
  void mask_out(T* row, Index i, const RowBlock& tile, T value) const {
    const Range seen = tile.sequence->keys_of(i);
    const Index begin = std::clamp(seen.begin, tile.keys.begin, tile.keys.end) - tile.keys.begin;
    const Index end = std::clamp(seen.end, begin + tile.keys.begin, tile.keys.end) - tile.keys.begin;
    std::fill(row, row + begin, value);
    std::fill(row + end, row + tile.keys.size(), value);
    if (!problem.mask) return;
    const std::uint8_t* mask = problem.mask.row(tile.b(), tile.h, i) + tile.keys.begin;
    for (Index j = begin; j < end; ++j) row[j] = mask[j] != 0 ? row[j] : value;
  }

  // y = or += w x, where w (nq, nk) is 0 for keys that a query does not see.
  void multiply(Mat<T> y, Write write, Mat<const T> w, Mat<const T> x, const RowBlock& tile) const {
    const T beta = write == Write::overwrite ? T{0} : T{1};
    if (multiplies(x, tile)) return gemm_serial<T>(y, T{1}, w, Op::none, x, Op::none, beta);
    for (Index i = 0; write == Write::overwrite && i < y.rows; ++i) std::fill_n(y.row(i), y.cols, T{0});
    add_visible(
        problem, tile.pairs(), y.cols, [&](Index i, Index, Index c) -> T& { return y(i, c); },
        [&](Index i, Index j) { return w(i, j); }, [&](Index, Index j, Index c) { return x(j, c); });
  }
  // y += wᵀ x; x has a row for each query.
  void add_transposed(Mat<T> y, Mat<const T> w, Mat<const T> x, const RowBlock& tile) const {
    if (multiplies(x, tile)) return gemm_serial<T>(y, T{1}, w, Op::transpose, x, Op::none, T{1});
    add_visible(
        problem, tile.pairs(), y.cols, [&](Index, Index j, Index c) -> T& { return y(j, c); },
        [&](Index i, Index j) { return w(i, j); }, [&](Index i, Index, Index c) { return x(i, c); });
  }

  // row ⊙ M for query i.
  void drop(T* row, T* factors, Index i, const RowBlock& tile) const {
    dropout_factors(factors, tile.keys.begin, tile.keys.size(), problem.row(tile.b(), tile.h, i),
                    problem.options.dropout, problem.options.dropout_key);
    for (Index j = 0; j < tile.keys.size(); ++j) row[j] *= factors[j];
  }
  // P ⊙ M in `memory`, or P itself if there is no dropout.
  Mat<const T> dropped(Mat<const T> p, T* memory, T* factors, const RowBlock& tile) const {
    if (problem.options.dropout == 0) return p;
    const Mat<T> copy(memory, p.rows, p.cols);
    for (Index i = 0; i < p.rows; ++i) {
      std::copy_n(p.row(i), p.cols, copy.row(i));
      drop(copy.row(i), factors, tile.queries.begin + i, tile);
    }
    return copy;
  }

 private:
  // Whether a product with x may be formed over all pairs: see masked_products.h.
  bool multiplies(Mat<const T> x, const RowBlock& tile) const {
    if (!has_masked_pairs(problem, tile.pairs())) return true;
    bool finite = true;
    for (Index r = 0; finite && r < x.rows; ++r) finite = row_is_finite<T>(x.cols, x.row(r));
    return finite;
  }

  HeadsView<const T> q_, k_;
  std::vector<SequenceTile> blocks_;
};

}  // namespace tilegrad::kernels
