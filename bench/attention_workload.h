#pragma once

#include <optional>
#include <string>

#include "tilegrad/autograd/tensor.h"
#include "tilegrad/kernels/attention/attention.h"
#include "tilegrad/train/measure/attention_cost.h"

/// Flash attention on random numbers, called as the op calls it but without tape or op around it.
namespace tilegrad::bench {

using train::Pass;

/// What is computed, and on how many threads.
struct Problem {
  Index batch = 1, heads = 1, kv_heads = 1, tq = 0, tk = 0, dim = 0;
  bool causal = false;
  std::optional<Index> window = {};  ///< keys to the left that a query sees
  bool heads_first = false;          ///< (B, H, T, D) in memory instead of (B, T, H, D)
  int threads = 1;

  friend bool operator==(const Problem&, const Problem&) = default;
};

/// "B 1, H 8/1, T 4096, D 64": heads of queries / of keys and values, and queries / keys if they differ.
std::string describe(const Problem& problem);

/// Operations of the matrix products, for those pairs of query and key that causal and window leave.
double flops(const Problem& problem, Pass pass);

template <class T>
class Workload {
 public:
  /// Runs forward once, so that backward has what it needs.
  explicit Workload(const Problem& problem);

  const Problem& problem() const { return problem_; }

  void run(Pass pass);

  /// Whether flash and naive attention agree in half of their digits: forward on the last 64 queries,
  /// backward on the gradients that come through these. So naive attention holds 64 rows of scores a head,
  /// and a problem of any length is checked at its full size.
  bool agrees_with_naive(Pass pass);

  /// K, and V behind it.
  std::span<const T> keys_and_values() const { return kv_.view<T>(); }

 private:
  kernels::HeadsView<T> queries(Tensor& x) const;
  kernels::HeadsView<const T> queries(const Tensor& x) const;
  kernels::AttentionInputs<T> inputs() const;
  kernels::AttentionGrads<T> grads(Tensor& dq, Tensor& dkv) const;
  void backward(const Tensor& dout);
  bool forward_agrees();
  bool backward_agrees();

  Problem problem_;
  kernels::AttentionOptions options_;
  Tensor q_, dout_, out_, dq_;  // as the queries lie in memory
  Tensor kv_, dkv_;             // (2, B, Tk, Hkv, D): keys, then values
  Tensor lse_;
};

}  // namespace tilegrad::bench
