// Attention as it is written on paper: all scores, their softmax, the product with V. A task takes a block of
// query rows of one head, so the products are large enough for OpenBLAS and the rows still lie in the cache
// when the softmax reads them. Only the keys that some row of the block sees are touched.
#include "tilegrad/kernels/attention/naive_rows.h"

namespace tilegrad::kernels {

namespace {

template <class T>
class NaiveForward : NaiveAttention<T> {
 public:
  NaiveForward(HeadsView<T> out, std::span<T> lse, std::span<T> p, const AttentionInputs<T>& in,
               const AttentionOptions& options)
      : NaiveAttention<T>(in, options),
        out_(out),
        lse_(lse),
        p_(p),
        workspace_({{&Pieces::dropped, options.dropout > 0 ? kRows * in.k.time : 0},
                    {&Pieces::factors, in.k.time}}) {}

  void run() {
    const Index heads = problem_.heads;
    workspace_.run(std::ssize(this->blocks_) * heads, [&](Index task, const Pieces& w) {
      const RowBlock tile = this->row_block(task / heads, task % heads);
      const Mat<T> p = this->part(p_, tile);
      this->products(p, tile);
      for (Index i = 0; i < p.rows; ++i) softmax_row(p.row(i), tile.queries.begin + i, tile);
      const Mat<T> out = out_.head(tile.b(), tile.h).row_block(tile.queries.begin, p.rows);
      this->multiply(out, this->dropped(p, w.dropped, w.factors, tile), this->keys(problem_.in.v, tile), T{0},
                     tile);
    });
  }

 private:
  using NaiveAttention<T>::problem_;
  struct Pieces {
    T *dropped, *factors;
  };

  void softmax_row(T* row, Index i, const RowBlock& tile) {
    constexpr T kInfinity = std::numeric_limits<T>::infinity();
    const Index n = tile.keys.size();
    apply(row, i, tile);
    this->mask_out(row, i, tile, -kInfinity);
    const T sink = problem_.sink(tile.h);
    const T max = std::max(sink, row_max<T>(n, row));
    // −inf − (−inf) is NaN, as it should unless the row sees nothing.
    const T shift = max == -kInfinity && problem_.fully_masked(*tile.sequence, tile.h, i) ? T{0} : max;
    const T sum = row_exp<T>(row, n, row, shift) + std::exp(sink - shift);
    lse_[problem_.row(tile.b(), tile.h, i)] = max + std::log(sum);
    row_scale<T>(row, n, sum == 0 ? T{0} : 1 / sum);
    this->mask_out(row, i, tile, T{0});
    T* whole = row - tile.keys.begin;
    std::fill(whole, row, T{0});
    std::fill(row + n, whole + problem_.tk, T{0});
  }

  // Softcap, bias and ALiBi.
  void apply(T* row, Index i, const RowBlock& tile) const {
    const Index n = tile.keys.size();
    if (problem_.softcap > 0) {
      const T cap = static_cast<T>(problem_.softcap);
      for (Index j = 0; j < n; ++j) row[j] = cap * std::tanh(row[j] / cap);
    }
    if (problem_.in.bias) {
      const T* bias = problem_.in.bias.row(tile.b(), tile.h, i) + tile.keys.begin;
      for (Index j = 0; j < n; ++j) row[j] += bias[j];
    }
    if (!problem_.in.alibi.empty()) {
      const T slope = problem_.in.alibi[tile.h];
      for (Index j = 0; j < n; ++j)
        row[j] -= slope * static_cast<T>(std::abs(i + tile.sequence->shift - tile.keys.begin - j));
    }
  }

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
