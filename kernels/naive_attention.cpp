// Attention as it is written on paper: all scores, their softmax, the product with V. A task takes a block of
// query rows of one head, so the products are large enough for OpenBLAS and the rows still lie in the cache
// when the softmax reads them. Only the keys that some row of the block sees are touched.
#include "kernels/attention_dropout.h"
#include "kernels/attention_problem.h"
#include "kernels/gemm.h"
#include "kernels/rows.h"

namespace tilegrad::kernels {

namespace {

constexpr Index kRows = 64;  // query rows in one block

// A block of query rows of one head, and the keys that any of them sees.
struct RowBlock {
  const Sequence* sequence;
  Index h, hkv;
  Range queries, keys;

  Index b() const { return sequence->b; }
};

template <class T>
class NaiveAttention {
 public:
  NaiveAttention(const AttentionInputs<T>& in, const AttentionOptions& options)
      : problem_(in, options), blocks_(cut(problem_.sequences, &Sequence::queries, kRows)) {}

 protected:
  using Problem = AttentionProblem<T>;

  RowBlock row_block(Index number, Index h) const {
    const Block& block = blocks_[static_cast<std::size_t>(number)];
    const Sequence& s = problem_.sequences[static_cast<std::size_t>(block.sequence)];
    Range keys = s.keys_of(block.rows);
    keys.end = std::max(keys.begin, keys.end);
    return {&s, h, h / problem_.group(), block.rows, keys};
  }
  static Mat<const T> queries(const Heads<const T>& x, const RowBlock& at) {
    return x.head(at.b(), at.h).row_block(at.queries.begin, at.queries.size());
  }
  static Mat<const T> keys(const Heads<const T>& x, const RowBlock& at) {
    return x.head(at.b(), at.hkv).row_block(at.keys.begin, at.keys.size());
  }
  // The columns of p (B, Hq, Tq, Tk) that belong to the block.
  template <class U>
  Mat<U> part(std::span<U> p, const RowBlock& at) const {
    return {p.data() + problem_.row(at.b(), at.h, at.queries.begin) * problem_.tk + at.keys.begin,
            at.queries.size(), at.keys.size(), problem_.tk};
  }

  // What the scores are before softcap: scale Q Kᵀ.
  void products(Mat<T> s, const RowBlock& at) const {
    gemm_serial<T>(s, static_cast<T>(problem_.scale), queries(problem_.in.q, at), Op::none,
                   keys(problem_.in.k, at), Op::transpose, T{0});
  }

  // Hidden keys get `value`.
  void hide(T* row, Index i, const RowBlock& at, T value) const {
    const Range seen = at.sequence->keys_of(i);
    const Index begin = std::clamp(seen.begin, at.keys.begin, at.keys.end) - at.keys.begin;
    const Index end = std::clamp(seen.end, begin + at.keys.begin, at.keys.end) - at.keys.begin;
    std::fill(row, row + begin, value);
    std::fill(row + end, row + at.keys.size(), value);
    if (!problem_.in.mask) return;
    const std::uint8_t* mask = problem_.in.mask.row(at.b(), at.h, i) + at.keys.begin;
    for (Index j = begin; j < end; ++j) row[j] = mask[j] != 0 ? row[j] : value;
  }

  bool exposed(const RowBlock& at) const {
    return problem_.in.mask || !at.sequence->sees_all(at.queries, at.keys);
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
  void multiply(Mat<T> c, Mat<const T> w, Mat<const T> x, T beta, const RowBlock& at) const {
    if (!exposed(at) || finite(x)) {
      gemm_serial<T>(c, T{1}, w, Op::none, x, Op::none, beta);
      return;
    }
    for (Index i = 0; i < c.rows; ++i) {
      for (Index d = 0; d < c.cols; ++d) c(i, d) = beta == 0 ? T{0} : c(i, d);
      for (Index j = 0; j < x.rows; ++j) {
        if (!problem_.sees(*at.sequence, at.h, at.queries.begin + i, at.keys.begin + j)) continue;
        for (Index d = 0; d < c.cols; ++d) c(i, d) += w(i, j) * x(j, d);
      }
    }
  }
  // c += wᵀ x in the same manner; x has a row for each query.
  void add_transposed(Mat<T> c, Mat<const T> w, Mat<const T> x, const RowBlock& at) const {
    if (!exposed(at) || finite(x)) {
      gemm_serial<T>(c, T{1}, w, Op::transpose, x, Op::none, T{1});
      return;
    }
    for (Index i = 0; i < x.rows; ++i) {
      for (Index j = 0; j < c.rows; ++j) {
        if (!problem_.sees(*at.sequence, at.h, at.queries.begin + i, at.keys.begin + j)) continue;
        for (Index d = 0; d < c.cols; ++d) c(j, d) += w(i, j) * x(i, d);
      }
    }
  }

  // row ⊙ M for query i.
  void drop(T* row, T* factors, Index i, const RowBlock& at) const {
    dropout_factors(factors, at.keys.begin, at.keys.size(), problem_.row(at.b(), at.h, i),
                    problem_.options.dropout, problem_.options.dropout_key);
    for (Index j = 0; j < at.keys.size(); ++j) row[j] *= factors[j];
  }
  // P ⊙ M in `memory`, or P itself if there is no dropout.
  Mat<const T> dropped(Mat<const T> p, T* memory, T* factors, const RowBlock& at) const {
    if (problem_.options.dropout == 0) return p;
    const Mat<T> copy(memory, p.rows, p.cols);
    for (Index i = 0; i < p.rows; ++i) {
      std::copy_n(p.row(i), p.cols, copy.row(i));
      drop(copy.row(i), factors, at.queries.begin + i, at);
    }
    return copy;
  }

  Problem problem_;
  std::vector<Block> blocks_;
};

template <class T>
class NaiveForward : NaiveAttention<T> {
 public:
  NaiveForward(Heads<T> out, std::span<T> lse, std::span<T> p, const AttentionInputs<T>& in,
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
    const T sink = problem_.in.sinks.empty() ? -kInfinity : problem_.in.sinks[static_cast<std::size_t>(at.h)];
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

  Heads<T> out_;
  std::span<T> lse_, p_;
  Scratch<T> scratch_;
};

// Every query of every head in a group adds to the same dK and dV. A task takes a key/value head and walks
// over its query blocks in a fixed order. With fewer of them than kTasks the queries are cut into chunks,
// each with its own share of dK and dV, and the shares are added in a fixed order afterwards.
template <class T>
class NaiveBackward : NaiveAttention<T> {
 public:
  NaiveBackward(const AttentionGrads<T>& grads, Heads<const T> dout, const AttentionInputs<T>& in,
                std::span<const T> p, const AttentionOptions& options, std::span<const T> lse,
                std::span<const T> dlse)
      : NaiveAttention<T>(in, options),
        grads_(grads),
        dout_(dout),
        p_(p),
        lse_(lse),
        dlse_(dlse),
        chunks_(std::clamp<Index>(ceil_div(kTasks, std::max<Index>(in.k.heads * in.q.batch, 1)), 1,
                                  std::max<Index>(static_cast<Index>(this->blocks_.size()), 1))),
        scratch_({kRows * in.k.time, kRows * in.k.time, in.k.time}),
        shares_(chunks_ * kv_size() * static_cast<Index>(sizeof(T)), memory::Category::workspace),
        sums_(grads.dsinks.empty() ? 0 : static_cast<std::size_t>(chunks_ * problem_.heads)) {
    std::fill_n(share(0), chunks_ * kv_size(), T{0});
  }

  void run() {
    clear(grads_);
    // dbias that is broadcast is summed by one thread in the order of blocks; else tasks share no bias.
    const Index heads = problem_.kv_heads, tasks = chunks_ * heads;
    const auto work = [&](Index task, int thread) { run_chunk(task / heads, task % heads, thread); };
    const bool shared_bias = grads_.dbias && (grads_.dbias.stride_b == 0 || grads_.dbias.stride_h == 0);
    if (shared_bias) {
      for (Index task = 0; task < tasks; ++task) work(task, 0);
    } else {
      parallel_tasks(tasks, work);
    }
    add_shares();
    for (Index h = 0; !grads_.dsinks.empty() && h < problem_.heads; ++h) {
      double sum = 0;
      for (Index c = 0; c < chunks_; ++c) sum += sums_[static_cast<std::size_t>(c * problem_.heads + h)];
      put(grads_.dsinks[static_cast<std::size_t>(h)], grads_.write_sinks, static_cast<T>(sum));
    }
  }

 private:
  using NaiveAttention<T>::problem_;
  static constexpr Index kTasks = 8;

  Index dk_size() const { return problem_.batch * problem_.kv_heads * problem_.tk * problem_.dim; }
  Index kv_size() const {
    return dk_size() + problem_.batch * problem_.kv_heads * problem_.tk * problem_.dim_v;
  }
  T* share(Index chunk) const { return reinterpret_cast<T*>(shares_.data()) + chunk * kv_size(); }
  // One chunk's share of dK or dV, laid out (B, Hkv, Tk, dim).
  Mat<T> share_of(Index chunk, bool is_v, Index b, Index hkv) const {
    const Index dim = is_v ? problem_.dim_v : problem_.dim;
    T* all = share(chunk) + (is_v ? dk_size() : 0);
    return {all + (b * problem_.kv_heads + hkv) * problem_.tk * dim, problem_.tk, dim};
  }

  void clear(const AttentionGrads<T>& g) const {
    if (!g.dbias || g.write_bias == Write::accumulate) return;
    const Index bs = g.dbias.stride_b == 0 ? 1 : problem_.batch,
                hs = g.dbias.stride_h == 0 ? 1 : problem_.heads;
    for (Index n = 0; n < bs * hs * problem_.tq; ++n)
      std::fill_n(g.dbias.row(n / problem_.tq / hs, n / problem_.tq % hs, n % problem_.tq), problem_.tk,
                  T{0});
  }

  void run_chunk(Index chunk, Index hkv, int thread) {
    const auto blocks = static_cast<Index>(this->blocks_.size());
    for (Index h = hkv * problem_.group(); h < (hkv + 1) * problem_.group(); ++h) {
      for (Index n = blocks * chunk / chunks_; n < blocks * (chunk + 1) / chunks_; ++n)
        run_block(this->row_block(n, h), chunk, thread);
    }
  }

  void run_block(const RowBlock& at, Index chunk, int thread) {
    const Mat<const T> p = this->part(p_, at), dout = this->queries(dout_, at);
    const auto rows = [&](Mat<T> x) { return x.row_block(at.keys.begin, at.keys.size()); };
    T* factors = scratch_.piece(thread, 2);
    // forward: O = (P ⊙ M) V
    this->add_transposed(rows(share_of(chunk, true, at.b(), at.hkv)),
                         this->dropped(p, scratch_.piece(thread, 1), factors, at), dout, at);
    const Mat<T> ds(scratch_.piece(thread, 0), p.rows, p.cols);
    gemm_serial<T>(ds, T{1}, dout, Op::none, this->keys(problem_.in.v, at), Op::transpose, T{0});
    for (Index i = 0; i < p.rows; ++i)
      score_gradients(ds.row(i), p.row(i), at.queries.begin + i, chunk, factors, at);
    through_scale(ds, Mat<T>(scratch_.piece(thread, 1), p.rows, p.cols), at);
    // forward: S = scale Q Kᵀ
    if (grads_.dq.data != nullptr) {
      const Mat<T> dq = grads_.dq.head(at.b(), at.h).row_block(at.queries.begin, p.rows);
      this->multiply(dq, ds, this->keys(problem_.in.k, at), grads_.write_q == Write::overwrite ? T{0} : T{1},
                     at);
    }
    this->add_transposed(rows(share_of(chunk, false, at.b(), at.hkv)), ds, this->queries(problem_.in.q, at),
                         at);
  }

  // forward: P = softmax(S + bias). In place of dP.
  void score_gradients(T* ds, const T* p, Index i, Index chunk, T* factors, const RowBlock& at) {
    const Index n = at.keys.size(), row = problem_.row(at.b(), at.h, i);
    if (problem_.options.dropout > 0) this->drop(ds, factors, i, at);
    this->hide(ds, i, at, T{0});
    T delta = row_dot<T>(n, p, ds);
    if (!dlse_.empty()) delta -= dlse_[static_cast<std::size_t>(row)];
    for (Index j = 0; j < n; ++j) ds[j] = p[j] * (ds[j] - delta);
    this->hide(ds, i, at, T{0});
    if (grads_.dbias) {
      T* to = grads_.dbias.row(at.b(), at.h, i) + at.keys.begin;
      for (Index j = 0; j < n; ++j) to[j] += ds[j];
    }
    if (grads_.dsinks.empty() || delta == 0) return;
    const auto sink = static_cast<double>(problem_.in.sinks[static_cast<std::size_t>(at.h)]);
    const auto lse = static_cast<double>(lse_[static_cast<std::size_t>(row)]);
    if (std::isinf(lse) && lse < 0) return;  // the row saw nothing, its sink is −inf as well
    sums_[static_cast<std::size_t>(chunk * problem_.heads + at.h)] -=
        std::exp(sink - lse) * static_cast<double>(delta);
  }

  // To the gradient of Q Kᵀ. The softcap's derivative needs the products again.
  void through_scale(Mat<T> ds, Mat<T> products, const RowBlock& at) const {
    const T scale = static_cast<T>(problem_.scale), cap = static_cast<T>(problem_.softcap);
    if (cap > 0) this->products(products, at);
    for (Index i = 0; i < ds.rows; ++i) {
      for (Index j = 0; j < ds.cols; ++j) {
        const T t = cap > 0 ? std::tanh(products(i, j) / cap) : T{0};
        ds(i, j) *= scale * (1 - t * t);
      }
      this->hide(ds.row(i), at.queries.begin + i, at, T{0});
    }
  }

  void add_shares() const {
    parallel_tasks(problem_.batch * problem_.kv_heads, [&](Index n, int) {
      const Index b = n / problem_.kv_heads, hkv = n % problem_.kv_heads;
      if (grads_.dk.data != nullptr) add_shares_of(false, grads_.dk.head(b, hkv), grads_.write_k, b, hkv);
      if (grads_.dv.data != nullptr) add_shares_of(true, grads_.dv.head(b, hkv), grads_.write_v, b, hkv);
    });
  }
  void add_shares_of(bool is_v, Mat<T> grad, Write write, Index b, Index hkv) const {
    for (Index j = 0; j < grad.rows; ++j) {
      if (write == Write::overwrite) std::fill_n(grad.row(j), grad.cols, T{0});
      for (Index c = 0; c < chunks_; ++c) {
        const T* part = share_of(c, is_v, b, hkv).row(j);
        for (Index d = 0; d < grad.cols; ++d) grad(j, d) += part[d];
      }
    }
  }

  AttentionGrads<T> grads_;
  Heads<const T> dout_;
  std::span<const T> p_, lse_, dlse_;
  Index chunks_;
  Scratch<T> scratch_;
  memory::Block shares_;      // (chunks, dK then dV)
  std::vector<double> sums_;  // (chunks, Hq): shares of dsinks
};

}  // namespace

template <class T>
void naive_attention(Heads<T> out, std::span<T> lse, std::span<T> p, const AttentionInputs<T>& in,
                     const AttentionOptions& options) {
  NaiveForward<T>(out, lse, p, in, options).run();
}

template <class T>
void naive_attention_backward(const AttentionGrads<T>& grads, std::type_identity_t<Heads<const T>> dout,
                              const AttentionInputs<T>& in, std::span<const std::type_identity_t<T>> p,
                              const AttentionOptions& options, std::span<const std::type_identity_t<T>> lse,
                              std::span<const std::type_identity_t<T>> dlse) {
  NaiveBackward<T>(grads, dout, in, p, options, lse, dlse).run();
}

#define TILEGRAD_INSTANTIATE(T)                                                                     \
  template void naive_attention<T>(Heads<T>, std::span<T>, std::span<T>, const AttentionInputs<T>&, \
                                   const AttentionOptions&);                                        \
  template void naive_attention_backward<T>(                                                        \
      const AttentionGrads<T>&, Heads<const T>, const AttentionInputs<T>&, std::span<const T>,      \
      const AttentionOptions&, std::span<const T>, std::span<const T>);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels
