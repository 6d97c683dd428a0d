#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention.h"

/// Attention in plain loops over doubles, with the softmax Jacobian of the textbook: slow, and so simple that
/// its truth can be seen. It shares no code with the kernels.
namespace tilegrad::test {

struct AttentionSizes {
  Index b = 1, tq = 1, tk = 1, hq = 1, hkv = 1, d = 1, dv = 1;

  Index q_size() const { return b * tq * hq * d; }
  Index k_size() const { return b * tk * hkv * d; }
  Index v_size() const { return b * tk * hkv * dv; }
  Index out_size() const { return b * tq * hq * dv; }
};

/// Everything that forward and backward compute. All tensors are contiguous, as in kernels/attention.h.
template <class T>
struct AttentionResult {
  std::vector<T> out, lse, dq, dk, dv;
};

class AttentionReference {
 public:
  AttentionReference(const AttentionSizes& sizes, const kernels::AttentionOptions& options,
                     std::vector<double> q, std::vector<double> k, std::vector<double> v,
                     std::vector<double> dout)
      : n_(sizes), options_(options), q_(q), k_(k), v_(v), dout_(dout) {}

  AttentionResult<double> run() const {
    const auto zeros = [](Index n) { return std::vector<double>(static_cast<std::size_t>(n)); };
    AttentionResult<double> r = {zeros(n_.out_size()), zeros(n_.b * n_.hq * n_.tq), zeros(n_.q_size()),
                                 zeros(n_.k_size()), zeros(n_.v_size())};
    for (Index b = 0; b < n_.b; ++b) {
      for (Index h = 0; h < n_.hq; ++h) {
        for (Index i = 0; i < n_.tq; ++i) row(r, b, h, i);
      }
    }
    return r;
  }

 private:
  static std::size_t at(Index x) { return static_cast<std::size_t>(x); }
  // Where the vectors of one query or key begin.
  std::size_t q(Index b, Index i, Index h) const { return at(((b * n_.tq + i) * n_.hq + h) * n_.d); }
  std::size_t o(Index b, Index i, Index h) const { return at(((b * n_.tq + i) * n_.hq + h) * n_.dv); }
  std::size_t k(Index b, Index j, Index h) const {
    return at(((b * n_.tk + j) * n_.hkv + h * n_.hkv / n_.hq) * n_.d);
  }
  std::size_t v(Index b, Index j, Index h) const {
    return at(((b * n_.tk + j) * n_.hkv + h * n_.hkv / n_.hq) * n_.dv);
  }

  bool sees(Index i, Index j) const {
    if (!options_.causal) return true;
    return options_.align == kernels::Align::top_left ? j <= i : n_.tk - j >= n_.tq - i;
  }

  // 1/(1 − p) where probability (b, h, i, j) is kept, else 0.
  double kept(Index b, Index h, Index i, Index j) const {
    if (options_.dropout == 0) return 1;
    const auto words = options_.dropout_key.words(static_cast<std::uint64_t>(j / 4),
                                                  static_cast<std::uint64_t>((b * n_.hq + h) * n_.tq + i));
    const bool keep = static_cast<double>(words[at(j % 4)]) >= std::floor(options_.dropout * 4294967296.0);
    return keep ? 1 / (1 - options_.dropout) : 0;
  }

  // One query: its output, its gradient, and what it adds to the gradients of the keys and values it sees.
  void row(AttentionResult<double>& r, Index b, Index h, Index i) const {
    const double scale = options_.scale.value_or(1 / std::sqrt(static_cast<double>(n_.d)));
    std::vector<Index> keys;
    std::vector<double> p, dp;
    for (Index j = 0; j < n_.tk; ++j) {
      if (!sees(i, j)) continue;
      double s = 0;
      for (std::size_t d = 0; d < at(n_.d); ++d) s += q_[q(b, i, h) + d] * k_[k(b, j, h) + d];
      keys.push_back(j);
      p.push_back(scale * s);
    }
    double max = -std::numeric_limits<double>::infinity(), sum = 0;
    for (const double s : p) max = std::max(max, s);
    for (double& s : p) sum += s = std::exp(s - max);
    for (double& s : p) s /= sum;
    r.lse[at((b * n_.hq + h) * n_.tq + i)] = max + std::log(sum);

    for (std::size_t a = 0; a < keys.size(); ++a) {
      const double m = kept(b, h, i, keys[a]);
      double sum_dp = 0;
      for (std::size_t d = 0; d < at(n_.dv); ++d) {
        const double dout = dout_[o(b, i, h) + d], value = v_[v(b, keys[a], h) + d];
        r.out[o(b, i, h) + d] += m * p[a] * value;
        r.dv[v(b, keys[a], h) + d] += m * p[a] * dout;
        sum_dp += dout * value;
      }
      dp.push_back(m * sum_dp);
    }
    for (std::size_t a = 0; a < keys.size(); ++a) {
      double ds = 0;  // ∂p_c/∂s_a = p_c ([a = c] − p_a)
      for (std::size_t c = 0; c < keys.size(); ++c) ds += dp[c] * p[c] * ((a == c ? 1.0 : 0.0) - p[a]);
      for (std::size_t d = 0; d < at(n_.d); ++d) {
        r.dq[q(b, i, h) + d] += scale * ds * k_[k(b, keys[a], h) + d];
        r.dk[k(b, keys[a], h) + d] += scale * ds * q_[q(b, i, h) + d];
      }
    }
  }

  AttentionSizes n_;
  kernels::AttentionOptions options_;
  std::vector<double> q_, k_, v_, dout_;
};

}  // namespace tilegrad::test
