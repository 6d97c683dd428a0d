#include "bench/attention_workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "tilegrad/train/measure/tensor_difference.h"

namespace tilegrad::bench {

namespace {

using kernels::AttentionGrads;
using kernels::AttentionInputs;
using kernels::HeadsView;

std::string describe_pair(Index a, Index b) {
  return a == b ? fmt::format("{}", a) : fmt::format("{}/{}", a, b);
}

template <class T>
Tensor random(const Shape& shape, std::uint64_t part) {
  return Tensor::normal(shape, dtype_of<T>, RandomKey{1}.fold(part));
}

// The queries that are compared with naive attention.
template <class T>
HeadsView<T> last_queries(const HeadsView<T>& x) {
  const Index time = std::min<Index>(x.time, 64);
  T* const first = x.data + (x.time - time) * x.stride_t;
  return {first, x.batch, time, x.heads, x.dim, x.stride_b, x.stride_t, x.stride_h};
}

template <class T>
void copy_rows(const HeadsView<T>& to, const HeadsView<const T>& from) {
  for (Index i = 0; i < to.batch; ++i) {
    for (Index h = 0; h < to.heads; ++h) {
      for (Index t = 0; t < to.time; ++t) {
        std::ranges::copy(from.head(i, h).row_span(t), to.head(i, h).row_span(t).begin());
      }
    }
  }
}

// What naive attention keeps of the last queries.
template <class T>
struct Naive {
  std::vector<T> lse, p;

  Naive(HeadsView<T> out, const AttentionInputs<T>& in, const kernels::AttentionOptions& options) {
    const Index rows = in.q.batch * in.q.heads * in.q.time;
    lse.resize(static_cast<std::size_t>(rows));
    p.resize(static_cast<std::size_t>(rows * in.k.time));
    kernels::naive_attention<T>(out, lse, p, in, options);
  }
};

}  // namespace

std::string describe(const AttentionProblem& p, Layout layout) {
  std::string text = fmt::format("B {}, H {}, T {}, D {}", p.batch, describe_pair(p.heads, p.kv_heads),
                                 describe_pair(p.tq, p.tk), p.head_size);
  if (p.options.window.left) text += fmt::format(", window {}", *p.options.window.left);
  if (layout == Layout::heads_first) text += ", heads first";
  return text;
}

template <class T>
Workload<T>::Workload(const AttentionProblem& p, Layout layout) : problem_(p), layout_(layout) {
  q_ = random<T>({p.batch, p.tq, p.heads, p.head_size}, 0);
  kv_ = random<T>({2, p.batch, p.tk, p.kv_heads, p.head_size}, 1);
  dout_ = random<T>(q_.shape(), 2);
  out_ = Tensor::empty_like(q_);
  dq_ = Tensor::empty_like(q_);
  dkv_ = Tensor::empty_like(kv_);
  lse_ = Tensor::empty({p.batch, p.heads, p.tq}, dtype_of<T>);
  run(Phase::forward);
}

// A tensor of the problem, in its layout in memory.
template <class T>
template <class E>
HeadsView<E> Workload<T>::heads_of(E* data, Index time, Index heads) const {
  const Index size = problem_.head_size;
  if (layout_ == Layout::time_first) return {data, problem_.batch, time, heads, size};
  return {data, problem_.batch, time, heads, size, heads * time * size, size, time * size};
}

template <class T>
HeadsView<T> Workload<T>::queries(Tensor& x) const {
  return heads_of(x.mut<T>().data(), problem_.tq, problem_.heads);
}
template <class T>
HeadsView<const T> Workload<T>::queries(const Tensor& x) const {
  return heads_of(x.view<T>().data(), problem_.tq, problem_.heads);
}

template <class T>
AttentionInputs<T> Workload<T>::inputs() const {
  const T* const k = kv_.view<T>().data();
  const T* const v = k + kv_.size() / 2;
  return {.q = queries(q_),
          .k = heads_of(k, problem_.tk, problem_.kv_heads),
          .v = heads_of(v, problem_.tk, problem_.kv_heads)};
}

template <class T>
AttentionGrads<T> Workload<T>::grads(Tensor& dq, Tensor& dkv) const {
  T* const dk = dkv.mut<T>().data();
  T* const dv = dk + dkv.size() / 2;
  return {.dq = {queries(dq)},
          .dk = {heads_of(dk, problem_.tk, problem_.kv_heads)},
          .dv = {heads_of(dv, problem_.tk, problem_.kv_heads)}};
}

template <class T>
void Workload<T>::run(Phase phase) {
  if (phase == Phase::forward) {
    kernels::flash_attention<T>(queries(out_), lse_.mut<T>(), inputs(), problem_.options);
  } else {
    backward(dout_);
  }
}

template <class T>
void Workload<T>::backward(const Tensor& dout) {
  kernels::flash_attention_backward<T>(grads(dq_, dkv_), queries(dout), inputs(),
                                       queries(std::as_const(out_)), lse_.view<T>(), problem_.options);
}

template <class T>
bool Workload<T>::agrees_with_naive(Phase phase) {
  return phase == Phase::forward ? forward_agrees() : backward_agrees();
}

// Naive attention replaces the rows of the last queries in a copy of the result.
template <class T>
bool Workload<T>::forward_agrees() {
  AttentionInputs<T> in = inputs();
  in.q = last_queries(in.q);
  Tensor expected = out_.clone();
  const Naive<T> naive(last_queries(queries(expected)), in, problem_.options);
  return train::agree(out_, expected);
}

template <class T>
bool Workload<T>::backward_agrees() {
  // Where dout is 0, a query adds nothing to dk and dv, and its dq is 0: those of the last queries remain.
  Tensor dout = Tensor::zeros(dout_.shape(), dout_.dtype());
  const HeadsView<T> last = last_queries(queries(dout));
  copy_rows(last, last_queries(queries(std::as_const(dout_))));
  backward(dout);

  AttentionInputs<T> in = inputs();
  in.q = last_queries(in.q);
  Tensor out = Tensor::empty_like(out_), dq = Tensor::zeros(dq_.shape(), dq_.dtype());
  Tensor dkv = Tensor::empty_like(dkv_);
  const Naive<T> naive(last_queries(queries(out)), in, problem_.options);
  AttentionGrads<T> expected = grads(dq, dkv);
  expected.dq.to = last_queries(queries(dq));
  kernels::naive_attention_backward<T>(expected, last, in, naive.p, problem_.options);
  return train::agree(dq_, dq) && train::agree(dkv_, dkv);
}

template class Workload<float>;
template class Workload<double>;

}  // namespace tilegrad::bench
