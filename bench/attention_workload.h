#pragma once

#include <string>

#include "tilegrad/autograd/tensor.h"
#include "tilegrad/kernels/attention/attention.h"
#include "tilegrad/train/measure/attention_cost.h"

/// Flash attention on random numbers, called as the op calls it but without tape or op around it.
namespace tilegrad::bench {

using train::AttentionProblem;
using train::Phase;

enum class Layout {
  time_first,   ///< (B, T, H, D) in memory, as the layers make it
  heads_first,  ///< (B, H, T, D)
};

/// "B 1, H 8/1, T 4096, D 64": heads of queries / of keys and values, and queries / keys if they differ.
std::string describe(const AttentionProblem& problem, Layout layout);

template <class T>
class Workload {
 public:
  /// Runs forward once, so that backward has what it needs.
  Workload(const AttentionProblem& problem, Layout layout);

  void run(Phase phase);

  /// Whether flash and naive attention agree in half of their digits: forward on the last 64 queries,
  /// backward on the gradients that come through these. So naive attention holds 64 rows of scores a head,
  /// and a problem of any length is checked at its full size.
  bool agrees_with_naive(Phase phase);

  /// K, and V after it.
  std::span<const T> keys_and_values() const { return kv_.view<T>(); }

 private:
  template <class E>
  kernels::HeadsView<E> heads_of(E* data, Index time, Index heads) const;
  kernels::HeadsView<T> queries(Tensor& x) const;
  kernels::HeadsView<const T> queries(const Tensor& x) const;
  kernels::AttentionInputs<T> inputs() const;
  kernels::AttentionGrads<T> grads(Tensor& dq, Tensor& dkv) const;
  void backward(const Tensor& dout);
  bool forward_agrees();
  bool backward_agrees();

  AttentionProblem problem_;
  Layout layout_;
  Tensor q_, dout_, out_, dq_;  // as the queries lie in memory
  Tensor kv_, dkv_;             // (2, B, Tk, Hkv, D): keys, then values
  Tensor lse_;
};

}  // namespace tilegrad::bench
