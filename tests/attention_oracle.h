#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "kernels/attention.h"

/// Attention with every option in plain loops over doubles, with the softmax Jacobian of the textbook: slow,
/// and so simple that its truth can be seen. It shares no code with the kernels.
namespace tilegrad::test {

/// Sizes of an attention problem and which of the optional tensors it has.
struct OracleSizes {
  Index b = 1, tq = 1, tk = 1, hq = 1, hkv = 1, d = 1, dv = 1;
};

/// Contiguous tensors in doubles; optional ones are empty.
struct OracleInputs {
  OracleSizes n;
  kernels::AttentionOptions options;
  std::vector<double> q, k, v, dout, dlse;
  std::vector<double> bias;  // (bias_b, bias_h, Tq, Tk)
  Index bias_b = 1, bias_h = 1;
  std::vector<std::uint8_t> mask;  // (mask_b, mask_h, Tq, Tk)
  Index mask_b = 1, mask_h = 1;
  std::vector<double> alibi, sinks;
  std::vector<std::int32_t> k_lengths, cu_q, cu_k;
};

struct OracleResult {
  std::vector<double> out, lse, dq, dk, dv, dbias, dsinks;
};

class Oracle {
 public:
  explicit Oracle(const OracleInputs& in) : in_(in), n_(in.n) {}

  OracleResult run() {
    r_ = {
        zeros(in_.dout.size()), zeros(at(n_.b * n_.hq * n_.tq)), zeros(in_.q.size()),    zeros(in_.k.size()),
        zeros(in_.v.size()),    zeros(in_.bias.size()),          zeros(in_.sinks.size())};
    for (Index b = 0; b < n_.b; ++b) {
      for (Index h = 0; h < n_.hq; ++h) {
        for (Index i = 0; i < n_.tq; ++i) row(b, h, i);
      }
    }
    return r_;
  }

 private:
  struct Score {
    Index j;
    double s, slope, p, m;  // slope: derivative of the softcap; m: dropout factor
  };

  static std::size_t at(Index x) { return static_cast<std::size_t>(x); }
  static std::vector<double> zeros(std::size_t n) { return std::vector<double>(n); }
  Index pair(Index b, Index h, Index i, Index j, Index size_b, Index size_h) const {
    return (((size_b == 1 ? 0 : b) * size_h + (size_h == 1 ? 0 : h)) * n_.tq + i) * n_.tk + j;
  }

  // The sequence of query i: [q0, q1) and [k0, k1).
  void find_sequence(Index b, Index i) {
    q0_ = 0, q1_ = n_.tq, k0_ = 0, k1_ = in_.k_lengths.empty() ? n_.tk : in_.k_lengths[at(b)];
    for (std::size_t n = 0; n + 1 < in_.cu_q.size(); ++n) {
      if (in_.cu_q[n] <= i && i < in_.cu_q[n + 1])
        q0_ = in_.cu_q[n], q1_ = in_.cu_q[n + 1], k0_ = in_.cu_k[n], k1_ = in_.cu_k[n + 1];
    }
  }
  // Where query i stands among the keys.
  Index position(Index i) const {
    const bool bottom = in_.options.align == kernels::Align::bottom_right;
    return i - q0_ + (bottom ? (k1_ - k0_) - (q1_ - q0_) : 0) + k0_;
  }
  bool sees(Index b, Index h, Index i, Index j) const {
    const auto& o = in_.options;
    if (j < k0_ || j >= k1_) return false;
    if (o.causal && j > position(i)) return false;
    if (o.window.left && j < position(i) - *o.window.left) return false;
    if (o.window.right && j > position(i) + *o.window.right) return false;
    return in_.mask.empty() || in_.mask[at(pair(b, h, i, j, in_.mask_b, in_.mask_h))] != 0;
  }
  double kept(Index row, Index j) const {
    const auto& o = in_.options;
    if (o.dropout == 0) return 1;
    const auto words =
        o.dropout_key.words(static_cast<std::uint64_t>(j / 4), static_cast<std::uint64_t>(row));
    return words[at(j % 4)] >= std::floor(o.dropout * 4294967296.0) ? 1 / (1 - o.dropout) : 0;
  }

  Score score(Index b, Index h, Index i, Index j) const {
    const double scale = in_.options.scale.value_or(1 / std::sqrt(static_cast<double>(n_.d)));
    const Index q = ((b * n_.tq + i) * n_.hq + h) * n_.d;
    const Index k = ((b * n_.tk + j) * n_.hkv + h * n_.hkv / n_.hq) * n_.d;
    double s = 0, slope = 1;
    for (Index d = 0; d < n_.d; ++d) s += in_.q[at(q + d)] * in_.k[at(k + d)];
    s *= scale;
    if (in_.options.softcap) {
      const double t = std::tanh(s / *in_.options.softcap);
      s = *in_.options.softcap * t;
      slope = 1 - t * t;
    }
    if (!in_.bias.empty()) s += in_.bias[at(pair(b, h, i, j, in_.bias_b, in_.bias_h))];
    if (!in_.alibi.empty()) s -= in_.alibi[at(h)] * std::abs(static_cast<double>(position(i) - j));
    return {j, s, slope * scale, 0, kept((b * n_.hq + h) * n_.tq + i, j)};
  }

  void row(Index b, Index h, Index i) {
    find_sequence(b, i);
    const Index row = (b * n_.hq + h) * n_.tq + i;
    std::vector<Score> scores;
    for (Index j = 0; j < n_.tk; ++j) {
      if (sees(b, h, i, j)) scores.push_back(score(b, h, i, j));
    }
    const double infinity = std::numeric_limits<double>::infinity();
    const double sink = in_.sinks.empty() ? -infinity : in_.sinks[at(h)];
    double max = sink, sum = 0;
    for (const Score& s : scores) max = std::max(max, s.s);
    if (scores.empty() && max == -infinity) {
      r_.lse[at(row)] = -infinity;
      return;
    }
    sum = std::exp(sink - max);
    for (const Score& s : scores) sum += std::exp(s.s - max);
    for (Score& s : scores) s.p = std::exp(s.s - max) / sum;
    r_.lse[at(row)] = max + std::log(sum);
    backward(b, h, i, scores, std::exp(sink - max) / sum);
  }

  void backward(Index b, Index h, Index i, const std::vector<Score>& scores, double p_sink) {
    const Index hkv = h * n_.hkv / n_.hq, o = ((b * n_.tq + i) * n_.hq + h) * n_.dv;
    const Index q = ((b * n_.tq + i) * n_.hq + h) * n_.d;
    const double dlse = in_.dlse.empty() ? 0 : in_.dlse[at((b * n_.hq + h) * n_.tq + i)];
    std::vector<double> dp;
    for (const Score& s : scores) {
      const Index v = ((b * n_.tk + s.j) * n_.hkv + hkv) * n_.dv;
      double product = 0;
      for (Index d = 0; d < n_.dv; ++d) {
        r_.out[at(o + d)] += s.m * s.p * in_.v[at(v + d)];
        r_.dv[at(v + d)] += s.m * s.p * in_.dout[at(o + d)];
        product += in_.dout[at(o + d)] * in_.v[at(v + d)];
      }
      dp.push_back(s.m * product);
    }
    double mean = 0;  // Σ_c p_c dp_c
    for (std::size_t c = 0; c < scores.size(); ++c) mean += scores[c].p * dp[c];
    if (!in_.sinks.empty()) r_.dsinks[at(h)] += p_sink * (dlse - mean);
    for (std::size_t a = 0; a < scores.size(); ++a) {
      const Score& s = scores[a];
      const double ds = s.p * (dp[a] - mean + dlse);
      if (!in_.bias.empty()) r_.dbias[at(pair(b, h, i, s.j, in_.bias_b, in_.bias_h))] += ds;
      const Index k = ((b * n_.tk + s.j) * n_.hkv + hkv) * n_.d;
      for (Index d = 0; d < n_.d; ++d) {
        r_.dq[at(q + d)] += s.slope * ds * in_.k[at(k + d)];
        r_.dk[at(k + d)] += s.slope * ds * in_.q[at(q + d)];
      }
    }
  }

  const OracleInputs& in_;
  OracleSizes n_;
  OracleResult r_;
  Index q0_ = 0, q1_ = 0, k0_ = 0, k1_ = 0;
};

}  // namespace tilegrad::test
