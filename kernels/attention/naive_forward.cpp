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
        scratch_({options.dropout > 0 ? kRows * in.k.time : 0, in.k.time}) {}

  void run() {
    const Index heads = problem_.heads;
    parallel_tasks(static_cast<Index>(this->blocks_.size()) * heads, [&](Index task, int thread) {
      const RowBlock at = this->row_block(task / heads, task % heads);
      const Mat<T> p = this->part(p_, at);
      this->products(p, at);
      for (Index i = 0; i < p.rows; ++i) softmax_row(p.row(i), at.queries.begin + i, at);
      const Mat<T> out = out_.head(at.b(), at.h).row_block(at.queries.begin, p.rows);
      this->multiply(out, this->dropped(p, scratch_.piece(thread, 0), scratch_.piece(thread, 1), at),
                     this->keys(problem_.in.v, at), T{0}, at);
    });
  }

 private:
  using NaiveAttention<T>::problem_;

  void softmax_row(T* row, Index i, const RowBlock& at) {
    constexpr T kInfinity = std::numeric_limits<T>::infinity();
    const Index n = at.keys.size();
    modify(row, i, at);
    this->hide(row, i, at, -kInfinity);
    const T sink = problem_.sink(at.h);
    const T max = std::max(sink, row_max<T>(n, row));
    // −inf − (−inf) is NaN, as it should unless the row sees nothing.
    const T shift = max == -kInfinity && problem_.blind(*at.sequence, at.h, i) ? T{0} : max;
    const T sum = row_exp<T>(row, n, row, shift) + std::exp(sink - shift);
    lse_[static_cast<std::size_t>(problem_.row(at.b(), at.h, i))] = max + std::log(sum);
    row_scale<T>(row, n, sum == 0 ? T{0} : 1 / sum);
    this->hide(row, i, at, T{0});
    T* whole = row - at.keys.begin;
    std::fill(whole, row, T{0});
    std::fill(row + n, whole + problem_.tk, T{0});
  }

  // Softcap, bias and ALiBi.
  void modify(T* row, Index i, const RowBlock& at) const {
    const Index n = at.keys.size();
    if (problem_.softcap > 0) {
      const T cap = static_cast<T>(problem_.softcap);
      for (Index j = 0; j < n; ++j) row[j] = cap * std::tanh(row[j] / cap);
    }
    if (problem_.in.bias) {
      const T* bias = problem_.in.bias.row(at.b(), at.h, i) + at.keys.begin;
      for (Index j = 0; j < n; ++j) row[j] += bias[j];
    }
    if (!problem_.in.alibi.empty()) {
      const T slope = problem_.in.alibi[static_cast<std::size_t>(at.h)];
      for (Index j = 0; j < n; ++j)
        row[j] -= slope * static_cast<T>(std::abs(i + at.sequence->shift - at.keys.begin - j));
    }
  }

  HeadsView<T> out_;
  std::span<T> lse_, p_;
  Scratch<T> scratch_;
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
