#include "bench/attention_workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace tilegrad::bench {

namespace {

using kernels::AttentionGrads;
using kernels::AttentionInputs;
using kernels::HeadsView;

std::string describe_pair(Index a, Index b) {
  return a == b ? fmt::format("{}", a) : fmt::format("{}/{}", a, b);
}

kernels::AttentionOptions options_of(const Problem& p) {
  return {.causal = p.causal, .window = {.left = p.window}};
}

template <class T>
Tensor random(const Shape& shape, std::uint64_t part) {
  return Tensor::uniform(shape, dtype_of<T>, RandomKey{1}.fold(part));
}

// Calls f with every row of D elements of a, and the same row of b.
template <class A, class B, class F>
void for_each_row(const HeadsView<A>& a, const HeadsView<B>& b, F&& f) {
  for (Index i = 0; i < a.batch; ++i) {
    for (Index h = 0; h < a.heads; ++h) {
      for (Index t = 0; t < a.time; ++t) f(a.head(i, h).row_span(t), b.head(i, h).row_span(t));
    }
  }
}

template <class T>
void copy_rows(const HeadsView<T>& to, const HeadsView<const T>& from) {
  for_each_row(to, from,
               [](std::span<T> y, std::span<const T> x) { std::copy(x.begin(), x.end(), y.begin()); });
}

// Half of the digits: rounding takes fewer, a mistake in a kernel more.
template <class T>
bool agree(const HeadsView<const T>& result, const HeadsView<const T>& expected) {
  T largest = 0, difference = 0;
  bool finite = true;
  for_each_row(result, expected, [&](std::span<const T> x, std::span<const T> y) {
    for (std::size_t d = 0; d < x.size(); ++d) {
      finite = finite && std::isfinite(x[d]);
      largest = std::max(largest, std::abs(y[d]));
      difference = std::max(difference, std::abs(x[d] - y[d]));
    }
  });
  return finite && difference <= std::sqrt(std::numeric_limits<T>::epsilon()) * largest;
}

// A tensor of the problem, as it lies in memory.
template <class T>
HeadsView<T> heads_of(const Problem& p, T* data, Index time, Index heads) {
  if (!p.heads_first) return {data, p.batch, time, heads, p.dim};
  return {data, p.batch, time, heads, p.dim, heads * time * p.dim, p.dim, time * p.dim};
}

// The queries that are compared with naive attention.
template <class T>
HeadsView<T> last_queries(const HeadsView<T>& x) {
  const Index time = std::min<Index>(x.time, 64);
  T* const first = x.data + (x.time - time) * x.stride_t;
  return {first, x.batch, time, x.heads, x.dim, x.stride_b, x.stride_t, x.stride_h};
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

std::string describe(const Problem& p) {
  std::string text = fmt::format("B {}, H {}, T {}, D {}", p.batch, describe_pair(p.heads, p.kv_heads),
                                 describe_pair(p.tq, p.tk), p.dim);
  if (p.window) text += fmt::format(", window {}", *p.window);
  if (p.heads_first) text += ", heads first";
  return text;
}

double flops(const Problem& p, Pass pass) {
  return train::attention_flops({.batch = p.batch,
                                 .heads = p.heads,
                                 .kv_heads = p.kv_heads,
                                 .tq = p.tq,
                                 .tk = p.tk,
                                 .dim = p.dim,
                                 .pairs = train::visible_pairs(p.tq, p.tk, options_of(p))},
                                pass);
}

template <class T>
Workload<T>::Workload(const Problem& p) : problem_(p), options_(options_of(p)) {
  q_ = random<T>({p.batch, p.tq, p.heads, p.dim}, 0);
  kv_ = random<T>({2, p.batch, p.tk, p.kv_heads, p.dim}, 1);
  dout_ = random<T>(q_.shape(), 2);
  out_ = Tensor::empty_like(q_);
  dq_ = Tensor::empty_like(q_);
  dkv_ = Tensor::empty_like(kv_);
  lse_ = Tensor::empty({p.batch, p.heads, p.tq}, dtype_of<T>);
  run(Pass::forward);
}

template <class T>
HeadsView<T> Workload<T>::queries(Tensor& x) const {
  return heads_of(problem_, x.mut<T>().data(), problem_.tq, problem_.heads);
}
template <class T>
HeadsView<const T> Workload<T>::queries(const Tensor& x) const {
  return heads_of(problem_, x.view<T>().data(), problem_.tq, problem_.heads);
}

template <class T>
AttentionInputs<T> Workload<T>::inputs() const {
  const T* const k = kv_.view<T>().data();
  const T* const v = k + kv_.size() / 2;
  return {.q = queries(q_),
          .k = heads_of(problem_, k, problem_.tk, problem_.kv_heads),
          .v = heads_of(problem_, v, problem_.tk, problem_.kv_heads)};
}

template <class T>
AttentionGrads<T> Workload<T>::grads(Tensor& dq, Tensor& dkv) const {
  T* const dk = dkv.mut<T>().data();
  T* const dv = dk + dkv.size() / 2;
  return {.dq = {queries(dq)},
          .dk = {heads_of(problem_, dk, problem_.tk, problem_.kv_heads)},
          .dv = {heads_of(problem_, dv, problem_.tk, problem_.kv_heads)}};
}

template <class T>
void Workload<T>::run(Pass pass) {
  if (pass == Pass::forward) {
    kernels::flash_attention<T>(queries(out_), lse_.mut<T>(), inputs(), options_);
  } else {
    backward(dout_);
  }
}

template <class T>
void Workload<T>::backward(const Tensor& dout) {
  kernels::flash_attention_backward<T>(grads(dq_, dkv_), queries(dout), inputs(),
                                       queries(std::as_const(out_)), lse_.view<T>(), options_);
}

template <class T>
bool Workload<T>::agrees_with_naive(Pass pass) {
  return pass == Pass::forward ? forward_agrees() : backward_agrees();
}

template <class T>
bool Workload<T>::forward_agrees() {
  AttentionInputs<T> in = inputs();
  in.q = last_queries(in.q);
  Tensor expected = Tensor::empty_like(out_);
  const HeadsView<T> expected_out = last_queries(queries(expected));
  const Naive<T> naive(expected_out, in, options_);
  return agree<T>(last_queries(queries(out_)), expected_out);
}

template <class T>
bool Workload<T>::backward_agrees() {
  // Where dout is 0, a query adds nothing to dk and dv: those of the last queries remain.
  Tensor dout = Tensor::zeros(dout_.shape(), dout_.dtype());
  const HeadsView<const T> all = queries(std::as_const(dout_));
  const HeadsView<T> last = last_queries(queries(dout));
  copy_rows(last, last_queries(all));
  backward(dout);

  AttentionInputs<T> in = inputs();
  in.q = last_queries(in.q);
  Tensor out = Tensor::empty_like(out_), dq = Tensor::empty_like(dq_), dkv = Tensor::empty_like(dkv_);
  const Naive<T> naive(last_queries(queries(out)), in, options_);
  AttentionGrads<T> expected = grads(dq, dkv);
  expected.dq.to = last_queries(expected.dq.to);
  kernels::naive_attention_backward<T>(expected, last, in, naive.p, options_);

  const AttentionGrads<T> flash = grads(dq_, dkv_);
  return agree<T>(last_queries(flash.dq.to), expected.dq.to) && agree<T>(flash.dk.to, expected.dk.to) &&
         agree<T>(flash.dv.to, expected.dv.to);
}

template class Workload<float>;
template class Workload<double>;

}  // namespace tilegrad::bench
