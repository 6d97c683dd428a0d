#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tilegrad/autograd/ops.h"

/// Attention from primitive ops alone: a third road to values and gradients, sharing no code with the
/// kernels.
namespace tilegrad::test {

class AttentionComposition {
 public:
  AttentionComposition(const AttentionOptions& options, const AttentionExtras& extras, const Var& q,
                       const Var& k)
      : options_(options),
        extras_(extras),
        batch_(q.dim(0)),
        tq_(q.dim(1)),
        tk_(k.dim(1)),
        heads_(q.dim(2)),
        seen_(Tensor::zeros({batch_, heads_, tq_, tk_}, Dtype::f64)) {
    each_pair(
        [&](Index at, Index b, Index h, Index i, Index j) { seen_.mut<double>()[at] = sees(b, h, i, j); });
  }

  /// out (B, Tq, Hq, Dv).
  Var out(const Var& q, const Var& k, const Var& v) const {
    Var p = slice(softmax(logits(q, k)), -1, 0, tk_);
    p = mul(p, seen_);  // for rows that see nothing
    if (options_.dropout > 0) p = mul(p, kept());
    return swap_axes(matmul(p, repeat_heads(v)));
  }

  /// The mean of lse (B, Hq, Tq); there must be sinks. The logarithm of a probability comes from the
  /// cross-entropy: lse = sink − log p_sink.
  Var mean_lse(const Var& q, const Var& k) const {
    const Tensor last = Tensor::from<std::int32_t>(
        {batch_, heads_, tq_}, std::vector<std::int32_t>(static_cast<std::size_t>(batch_ * heads_ * tq_),
                                                         static_cast<std::int32_t>(tk_)));
    return add(mean(extras_.sinks), cross_entropy(logits(q, k), last));
  }

 private:
  // f(place in (B, Hq, Tq, Tk), b, h, i, j)
  template <class F>
  void each_pair(F&& f) const {
    for (Index at = 0; at < batch_ * heads_ * tq_ * tk_; ++at)
      f(at, at / tk_ / tq_ / heads_, at / tk_ / tq_ % heads_, at / tk_ % tq_, at % tk_);
  }

  // The sequence of query i: where its queries and keys begin and end.
  struct Sequence {
    Index q0, q1, k0, k1;
  };
  Sequence sequence(Index b, Index i) const {
    const auto at = [](const Tensor& t, Index n) { return static_cast<Index>(t.at(n)); };
    if (!extras_.cu_q.defined())
      return {0, tq_, 0, extras_.k_lengths.defined() ? at(extras_.k_lengths, b) : tk_};
    Index n = 0;
    while (at(extras_.cu_q, n + 1) <= i) ++n;
    return {at(extras_.cu_q, n), at(extras_.cu_q, n + 1), at(extras_.cu_k, n), at(extras_.cu_k, n + 1)};
  }
  // How far key j lies ahead of query i.
  Index ahead(Index b, Index i, Index j) const {
    const Sequence s = sequence(b, i);
    return options_.align == Align::bottom_right ? (j - s.k1) - (i - s.q1) : (j - s.k0) - (i - s.q0);
  }
  bool sees(Index b, Index h, Index i, Index j) const {
    const Sequence s = sequence(b, i);
    const Index right = options_.causal ? 0 : options_.window.right.value_or(tq_ + tk_);
    if (j < s.k0 || j >= s.k1 || ahead(b, i, j) > right) return false;
    if (-ahead(b, i, j) > options_.window.left.value_or(tq_ + tk_)) return false;
    if (!extras_.mask.defined()) return true;
    const Shape& shape = extras_.mask.shape();
    return extras_.mask.at((((shape[0] == 1 ? 0 : b) * shape[1] + (shape[1] == 1 ? 0 : h)) * tq_ + i) * tk_ +
                           j) != 0;
  }

  // −inf where a query does not see a key. A row that sees nothing has no softmax: it is left as it is, and
  // hidden afterwards.
  Tensor hidden() const {
    Tensor x = Tensor::zeros(seen_.shape(), Dtype::f64);
    const auto seen = seen_.view<double>();
    for (Index row = 0; row < batch_ * heads_ * tq_; ++row) {
      const auto begin = seen.begin() + row * tk_;
      if (!extras_.sinks.value().defined() && std::count(begin, begin + tk_, 1.0) == 0) continue;
      for (Index j = 0; j < tk_; ++j) {
        if (begin[j] == 0) x.mut<double>()[row * tk_ + j] = -std::numeric_limits<double>::infinity();
      }
    }
    return x;
  }
  // −slope |i + offset − j|
  Tensor slopes() const {
    Tensor x = Tensor::zeros(seen_.shape(), Dtype::f64);
    each_pair([&](Index at, Index b, Index h, Index i, Index j) {
      x.mut<double>()[at] = -extras_.alibi.at(h) * static_cast<double>(std::abs(ahead(b, i, j)));
    });
    return x;
  }
  // What dropout multiplies probabilities by.
  Tensor kept() const {
    Tensor x = Tensor::zeros(seen_.shape(), Dtype::f64);
    each_pair([&](Index at, Index, Index, Index, Index j) {
      const auto words =
          options_.dropout_key.words(static_cast<std::uint64_t>(j / 4), static_cast<std::uint64_t>(at / tk_));
      const bool keep = words[j % 4] >= std::floor(options_.dropout * 0x1p32);
      x.mut<double>()[at] = keep ? 1 / (1 - options_.dropout) : 0;
    });
    return x;
  }

  // An axis of size 1 repeated.
  static Var repeat(const Var& x, int axis, Index n) {
    return x.dim(axis) == n ? x : concat(std::vector<Var>(static_cast<std::size_t>(n), x), axis);
  }
  // (B, T, Hkv, D) -> (B, Hq, T, D)
  Var repeat_heads(const Var& x) const {
    std::vector<Var> heads;
    for (Index h = 0; h < heads_; ++h) {
      const Index hkv = h * x.dim(2) / heads_;
      heads.push_back(slice(x, 2, hkv, hkv + 1));
    }
    return swap_axes(concat(heads, 2));
  }
  // The softmax of (x, −x) is (1 ± tanh x)/2.
  static Var tanh(const Var& x) {
    const Var column = reshape(x, {x.value().size(), 1});
    const Var p = softmax(concat(std::vector<Var>{column, scale(column, -1)}, 1));
    return reshape(sub(slice(p, 1, 0, 1), slice(p, 1, 1, 2)), x.shape());
  }
  // (Hq) -> (B, Hq, Tq, 1)
  Var sink_column() const {
    const Var rows = add_bias(Tensor::zeros({batch_, tq_, heads_}, Dtype::f64), extras_.sinks);
    return swap_axes(reshape(rows, {batch_, tq_, heads_, 1}));
  }

  // The scores (B, Hq, Tq, Tk), and the sinks as one column more.
  Var logits(const Var& q, const Var& k) const {
    const double factor = options_.scale.value_or(1 / std::sqrt(static_cast<double>(q.dim(3))));
    Var s = scale(matmul(swap_axes(q), repeat_heads(k), true), factor);
    if (options_.softcap) s = scale(tanh(scale(s, 1 / *options_.softcap)), *options_.softcap);
    if (extras_.bias.value().defined()) s = add(s, repeat(repeat(extras_.bias, 0, batch_), 1, heads_));
    if (extras_.alibi.defined()) s = add(s, slopes());
    s = add(s, hidden());
    return extras_.sinks.value().defined() ? concat(std::vector<Var>{s, sink_column()}, -1) : s;
  }

  AttentionOptions options_;
  AttentionExtras extras_;
  Index batch_, tq_, tk_, heads_;
  Tensor seen_;  // (B, Hq, Tq, Tk): 1 where a query sees a key, else 0
};

}  // namespace tilegrad::test
