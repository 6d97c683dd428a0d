// Attention as it is written on paper: all scores, their softmax, the product with V. A task takes a block of
// query rows of one head, so the products are large enough for OpenBLAS and the rows still lie in the cache
// when the softmax reads them. Only the keys that some row of the block sees are touched.
#include "tilegrad/kernels/attention/naive_rows.h"

namespace tilegrad::kernels {

namespace {

template <class T>
class NaiveForward {
 public:
  NaiveForward(HeadsView<T> out, std::span<T> lse, std::span<T> p, const AttentionInputs<T>& in,
               const AttentionOptions& options)
      : rows_(in, options),
        v_(in.v),
        out_(out),
        lse_(lse),
        p_(p),
        workspace_({{&Pieces::dropped, options.dropout > 0 ? kRows * in.k.time : 0},
                    {&Pieces::factors, in.k.time}}) {}

  void run() {
    const Index heads = rows_.problem.heads;
    workspace_.run(rows_.blocks() * heads, [&](Index task, const Pieces& w) {
      const RowBlock tile = rows_.row_block(task / heads, task % heads);
      const Mat<T> p = rows_.part(p_, tile);
      rows_.products(p, tile);
      w.stages.end(Stage::scores);
      for (Index i = 0; i < p.rows; ++i) softmax_row(p.row(i), tile.queries.begin + i, tile);
      w.stages.end(Stage::softmax);
      const Mat<T> out = out_.head(tile.b(), tile.h).row_block(tile.queries.begin, p.rows);
      rows_.multiply(out, Write::overwrite, rows_.dropped(p, w.dropped, w.factors, tile),
                     rows_.keys(v_, tile), tile);
      w.stages.end(Stage::values);
    });
  }

 private:
  struct Pieces {
    T *dropped, *factors;
    StageMarks stages;
  };

  void softmax_row(T* row, Index i, const RowBlock& tile) {
    constexpr T kInfinity = std::numeric_limits<T>::infinity();
    const Index n = tile.keys.size();
    rows_.mod_scores(row, i, tile);
    rows_.mask_out(row, i, tile, -kInfinity);
    const T sink = rows_.problem.sink(tile.h);
    const T max = std::max(sink, row_max<T>(n, row));
    const T sum = row_exp<T>(row, n, row, max) + std::exp(sink - max);
    T& lse = lse_[rows_.problem.row(tile.b(), tile.h, i)];
    lse = max + std::log(sum);
    row_scale<T>(row, n, 1 / sum);
    // −inf − (−inf) is NaN, as it should unless the row sees nothing.
    if (!std::isfinite(sum) && rows_.problem.fully_masked(*tile.sequence, tile.h, i)) {
      lse = sink;
      std::fill_n(row, n, T{0});
    }
    rows_.mask_out(row, i, tile, T{0});
    T* whole = row - tile.keys.begin;
    std::fill(whole, row, T{0});
    std::fill(row + n, whole + rows_.problem.tk, T{0});
  }

  NaiveRows<T> rows_;
  HeadsView<const T> v_;
  HeadsView<T> out_;
  std::span<T> lse_, p_;
  Workspace<T, Pieces> workspace_;
};

}  // namespace

template <class T>
void naive_attention(HeadsView<T> out, std::span<Compute<T>> lse, std::span<Compute<T>> p,
                     const AttentionInputs<T>& in, const AttentionOptions& options) {
  NaiveForward<T>(out, lse, p, in, options).run();
}

template void naive_attention<float>(HeadsView<float>, std::span<float>, std::span<float>,
                                     const AttentionInputs<float>&, const AttentionOptions&);
template void naive_attention<double>(HeadsView<double>, std::span<double>, std::span<double>,
                                      const AttentionInputs<double>&, const AttentionOptions&);

}  // namespace tilegrad::kernels
