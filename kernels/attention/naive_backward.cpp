// Naive attention, backward: forward kept P, so this is the chain rule through two products and a softmax.
//   O = (P ⊙ M) V        gives   dV = (P ⊙ M)ᵀ dO,   dP = (dO Vᵀ) ⊙ M
//   P = softmax(S)       gives   dS = P ⊙ (dP − delta),   delta_i = Σ_j p_ij dp_ij − dlse_i
//   S = f(scale Q Kᵀ)    gives   dQ = dS' K,   dK = dS'ᵀ Q   with dS' = dS ⊙ f' · scale
#include "tilegrad/kernels/attention/grads.h"
#include "tilegrad/kernels/attention/naive_rows.h"

namespace tilegrad::kernels {

namespace {

// Every query of every head in a group adds to the same dK and dV. A task takes a key/value head of a batch
// row and walks over its query blocks in a fixed order. If dbias is summed over heads or over the batch, one
// task takes all of those that add to the same elements. With fewer tasks than kTasks the queries are cut
// into chunks, each with its own share of dK and dV, and the shares are added in a fixed order afterwards.
template <class T>
class NaiveBackward {
 public:
  NaiveBackward(const AttentionGrads<T>& grads, HeadsView<const T> dout, const AttentionInputs<T>& in,
                std::span<const T> p, const AttentionOptions& options, std::span<const T> lse,
                std::span<const T> dlse)
      : rows_(in, options),
        in_(in),
        grads_(grads),
        dout_(dout),
        p_(p),
        lse_(lse),
        dlse_(dlse),
        batch_parts_(grads.dbias && grads.dbias.to.stride_b == 0 ? 1 : in.q.batch),
        head_parts_(grads.dbias && grads.dbias.to.stride_h == 0 ? 1 : in.k.heads),
        workspace_({{&Pieces::ds, kRows * in.k.time},
                    {&Pieces::dropped, kRows * in.k.time},
                    {&Pieces::factors, in.k.time}}) {
    const Index tasks = batch_parts_ * head_parts_, blocks = ceil_div(in.q.time, kRows);
    chunks_ = std::clamp<Index>(ceil_div(kTasks, std::max<Index>(tasks, 1)), 1, std::max<Index>(blocks, 1));
    shares_ = memory::Block(chunks_ * kv_size() * Index{sizeof(T)}, memory::Category::workspace);
    if (grads.dsinks)
      sums_.resize(static_cast<std::size_t>(chunks_ * rows_.problem.batch * rows_.problem.heads));
  }

  void run() {
    clear_dbias(grads_.dbias, rows_.problem);
    workspace_.run(chunks_ * batch_parts_ * head_parts_,
                   [&](Index number, const Pieces& w) { run_task(task(number), w); });
    add_shares();
    if (grads_.dsinks) add_sums();
  }

 private:
  static constexpr Index kTasks = 8;

  // `dropped` is used again for the products Q Kᵀ.
  struct Pieces {
    T *ds, *dropped, *factors;
    StageMarks stages;
  };

  Index dk_size() const {
    return rows_.problem.batch * rows_.problem.kv_heads * rows_.problem.tk * rows_.problem.dim;
  }
  Index kv_size() const {
    return dk_size() + rows_.problem.batch * rows_.problem.kv_heads * rows_.problem.tk * rows_.problem.dim_v;
  }
  T* share(Index chunk) const { return reinterpret_cast<T*>(shares_.data()) + chunk * kv_size(); }
  // One chunk's share of dK or dV, laid out (B, Hkv, Tk, dim).
  Mat<T> share_of(Index chunk, bool is_v, Index b, Index hkv) const {
    const Index dim = is_v ? rows_.problem.dim_v : rows_.problem.dim;
    T* all = share(chunk) + (is_v ? dk_size() : 0);
    return {all + (b * rows_.problem.kv_heads + hkv) * rows_.problem.tk * dim, rows_.problem.tk, dim};
  }

  // The queries of one chunk, in some batch rows and all heads of some groups.
  struct Task {
    Index chunk;
    Range batch, kv_heads;
  };
  Task task(Index number) const {
    const Index head_part = number % head_parts_, rest = number / head_parts_;
    return {rest / batch_parts_, split_of({0, rows_.problem.batch}, rest % batch_parts_, batch_parts_),
            split_of({0, rows_.problem.kv_heads}, head_part, head_parts_)};
  }

  // Chunks are cut by position, so that queries which share a row of dbias lie in the same one.
  Index chunk_of(Range queries) const { return queries.begin * chunks_ / rows_.problem.tq; }

  void run_task(const Task& task, const Pieces& w) {
    clear_shares(task);
    w.stages.end(Stage::prepare);
    const Index group = rows_.problem.group_size();
    for (Index h = task.kv_heads.begin * group; h < task.kv_heads.end * group; ++h) {
      for (Index n = 0; n < rows_.blocks(); ++n) {
        const RowBlock tile = rows_.row_block(n, h);
        const bool inside = task.batch.begin <= tile.b() && tile.b() < task.batch.end;
        if (inside && chunk_of(tile.queries) == task.chunk) run_block(tile, task.chunk, w);
      }
    }
  }

  void clear_shares(const Task& task) const {
    for (Index b = task.batch.begin; b < task.batch.end; ++b) {
      for (Index hkv = task.kv_heads.begin; hkv < task.kv_heads.end; ++hkv) {
        for (const bool is_v : {false, true}) {
          const Mat<T> x = share_of(task.chunk, is_v, b, hkv);
          std::fill_n(x.data, x.rows * x.cols, T{0});
        }
      }
    }
  }

  void run_block(const RowBlock& tile, Index chunk, const Pieces& w) {
    const Mat<const T> p = rows_.part(p_, tile), dout = rows_.queries(dout_, tile);
    const auto rows = [&](Mat<T> x) { return x.row_block(tile.keys.begin, tile.keys.size()); };
    T* factors = w.factors;
    // forward: O = (P ⊙ M) V
    rows_.add_transposed(rows(share_of(chunk, true, tile.b(), tile.hkv)),
                         rows_.dropped(p, w.dropped, factors, tile), dout, tile);
    w.stages.end(Stage::dv);
    const Mat<T> ds(w.ds, p.rows, p.cols);
    gemm_serial<T>(ds, T{1}, dout, Op::none, rows_.keys(in_.v, tile), Op::transpose, T{0});
    w.stages.end(Stage::dp);
    for (Index i = 0; i < p.rows; ++i)
      score_gradients(ds.row(i), p.row(i), tile.queries.begin + i, chunk, factors, tile);
    rows_.mod_gradients(ds, Mat<T>(w.dropped, p.rows, p.cols), tile);
    w.stages.end(Stage::ds);
    // forward: S = scale Q Kᵀ
    if (grads_.dq) {
      const Mat<T> dq = grads_.dq.to.head(tile.b(), tile.h).row_block(tile.queries.begin, p.rows);
      rows_.multiply(dq, grads_.dq.write, ds, rows_.keys(in_.k, tile), tile);
    }
    w.stages.end(Stage::dq);
    rows_.add_transposed(rows(share_of(chunk, false, tile.b(), tile.hkv)), ds, rows_.queries(in_.q, tile),
                         tile);
    w.stages.end(Stage::dk);
  }

  // forward: P = softmax(S + bias). In place of dP.
  void score_gradients(T* ds, const T* p, Index i, Index chunk, T* factors, const RowBlock& tile) {
    const Index n = tile.keys.size(), row = rows_.problem.row(tile.b(), tile.h, i);
    if (rows_.problem.options.dropout > 0) rows_.drop(ds, factors, i, tile);
    rows_.mask_out(ds, i, tile, T{0});
    const T dlse = dlse_.empty() ? T{0} : dlse_[row];
    T delta = row_dot<T>(n, p, ds) - dlse;
    // 0 · NaN is NaN, but a row that sees nothing has no gradients but that of its sink.
    const bool fully_masked = !std::isfinite(delta) && rows_.problem.fully_masked(*tile.sequence, tile.h, i);
    if (fully_masked) delta = -dlse;
    for (Index j = 0; j < n; ++j) ds[j] = fully_masked ? T{0} : p[j] * (ds[j] - delta);
    rows_.mask_out(ds, i, tile, T{0});
    if (grads_.dbias) {
      T* to = grads_.dbias.to.row(tile.b(), tile.h, i) + tile.keys.begin;
      for (Index j = 0; j < n; ++j) to[j] += ds[j];
    }
    if (!grads_.dsinks || delta == 0) return;
    const auto sink = static_cast<double>(rows_.problem.sinks[tile.h]);
    const auto lse = static_cast<double>(lse_[row]);
    if (std::isinf(lse) && lse < 0) return;  // the row saw nothing, its sink is −inf as well
    const double p_sink = is_large_score(lse_[row]) ? rest_of(p, n) : std::exp(sink - lse);
    sum_of(chunk, tile.b(), tile.h) -= p_sink * static_cast<double>(delta);
  }

  // What the keys leave to the sink of a row: an lse of the size of its scores has no room for that.
  static double rest_of(const T* p, Index n) {
    double rest = 1;
    for (Index j = 0; j < n; ++j) rest -= static_cast<double>(p[j]);
    return std::max(rest, 0.0);
  }

  void add_shares() const {
    workspace_.run(rows_.problem.batch * rows_.problem.kv_heads, [&](Index n, const Pieces& w) {
      const Index b = n / rows_.problem.kv_heads, hkv = n % rows_.problem.kv_heads;
      if (grads_.dk) add_shares_of(false, grads_.dk.to.head(b, hkv), grads_.dk.write, b, hkv);
      if (grads_.dv) add_shares_of(true, grads_.dv.to.head(b, hkv), grads_.dv.write, b, hkv);
      w.stages.end(Stage::store);
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

  double& sum_of(Index chunk, Index b, Index h) {
    return sums_[(chunk * rows_.problem.batch + b) * rows_.problem.heads + h];
  }
  void add_sums() {
    for (Index h = 0; h < rows_.problem.heads; ++h) {
      double sum = 0;
      for (Index c = 0; c < chunks_; ++c) {
        for (Index b = 0; b < rows_.problem.batch; ++b) sum += sum_of(c, b, h);
      }
      store(grads_.dsinks.to[h], grads_.dsinks.write, static_cast<T>(sum));
    }
  }

  NaiveRows<T> rows_;
  AttentionInputs<T> in_;
  AttentionGrads<T> grads_;
  HeadsView<const T> dout_;
  std::span<const T> p_, lse_, dlse_;
  Index batch_parts_, head_parts_, chunks_;  // tasks are (chunk, part of the batch, part of the heads)
  Workspace<T, Pieces> workspace_;
  memory::Block shares_;      // (chunks, dK then dV)
  std::vector<double> sums_;  // (chunks, B, Hq): shares of dsinks
};

}  // namespace

template <class T>
void naive_attention_backward(const AttentionGrads<T>& grads, HeadsView<const T> dout,
                              const AttentionInputs<T>& in, std::span<const Compute<T>> p,
                              const AttentionOptions& options, std::span<const Compute<T>> lse,
                              std::span<const Compute<T>> dlse) {
  NaiveBackward<T>(grads, dout, in, p, options, lse, dlse).run();
}

template void naive_attention_backward<float>(const AttentionGrads<float>&, HeadsView<const float>,
                                              const AttentionInputs<float>&, std::span<const float>,
                                              const AttentionOptions&, std::span<const float>,
                                              std::span<const float>);
template void naive_attention_backward<double>(const AttentionGrads<double>&, HeadsView<const double>,
                                               const AttentionInputs<double>&, std::span<const double>,
                                               const AttentionOptions&, std::span<const double>,
                                               std::span<const double>);

}  // namespace tilegrad::kernels
