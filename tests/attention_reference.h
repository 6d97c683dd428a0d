#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tilegrad/kernels/attention/attention.h"

/// Attention with every option in plain loops over doubles: slow, and so simple that its truth can be seen.
/// It shares no code with the kernels.
namespace tilegrad::test {

struct AttentionSizes {
  Index b = 1, tq = 1, tk = 1, hq = 1, hkv = 1, d = 1, dv = 1;

  Index q_size() const { return b * tq * hq * d; }
  Index k_size() const { return b * tk * hkv * d; }
  Index v_size() const { return b * tk * hkv * dv; }
  Index out_size() const { return b * tq * hq * dv; }
  Index lse_size() const { return b * hq * tq; }
};

/// A number for each pair of query and key, (b, h, Tq, Tk). b and h are 1 where the axis is broadcast.
template <class T>
struct PairTensor {
  Index b = 1, h = 1;
  std::vector<T> data = {};
};

/// One problem: contiguous tensors as in kernels/attention/attention.h. Those that are not given are empty.
struct AttentionCase {
  AttentionSizes n = {};
  kernels::AttentionOptions options = {};
  std::vector<double> q = {}, k = {}, v = {}, dout = {}, dlse = {};
  PairTensor<double> bias = {};
  PairTensor<std::uint8_t> mask = {};
  std::vector<double> alibi = {}, sinks = {};
  std::vector<std::int32_t> k_lengths = {}, cu_q = {}, cu_k = {};
};

/// Everything that forward and backward compute.
template <class T>
struct AttentionResult {
  std::vector<T> out, lse, dq, dk, dv, dbias, dsinks;
};

/// Sums and probabilities are doubles. Scores are rounded to T wherever the contract has a score: what a bias
/// of −1e9 leaves of ⟨q, k⟩ is a property of T, not an error of a kernel.
template <class T>
class AttentionReference {
 public:
  explicit AttentionReference(const AttentionCase& c) : c_(c), n_(c.n) {}

  AttentionResult<double> run() {
    const auto zeros = [](auto n) { return std::vector<double>(static_cast<std::size_t>(n)); };
    r_ = {zeros(n_.out_size()), zeros(n_.lse_size()),       zeros(n_.q_size()),    zeros(n_.k_size()),
          zeros(n_.v_size()),   zeros(c_.bias.data.size()), zeros(c_.sinks.size())};
    for (Index b = 0; b < n_.b; ++b) {
      for (Index h = 0; h < n_.hq; ++h) {
        for (Index i = 0; i < n_.tq; ++i) row(b, h, i);
      }
    }
    return r_;
  }

 private:
  // Key j as one query sees it.
  struct Score {
    Index j;
    double s;      // the score, with everything that is added to it
    double slope;  // ∂s/∂⟨q, k⟩
    double kept;   // 1/(1 − dropout), or 0 if dropped
    double p = 0;
  };
  // The queries [q0, q1) and keys [k0, k1) that may see each other.
  struct Span {
    Index q0, q1, k0, k1;
  };

  static std::size_t at(Index x) { return static_cast<std::size_t>(x); }
  // To the nearest T; ±∞ beyond its range.
  static double rounded(double x) {
    constexpr auto kMax = static_cast<double>(std::numeric_limits<T>::max());
    if (std::abs(x) > kMax) return std::copysign(std::numeric_limits<double>::infinity(), x);
    return static_cast<double>(static_cast<T>(x));
  }
  // Where the vectors of one query or key begin, and its row of (B, Hq, Tq).
  std::size_t q(Index b, Index i, Index h) const { return at(((b * n_.tq + i) * n_.hq + h) * n_.d); }
  std::size_t o(Index b, Index i, Index h) const { return at(((b * n_.tq + i) * n_.hq + h) * n_.dv); }
  std::size_t k(Index b, Index j, Index h) const {
    return at(((b * n_.tk + j) * n_.hkv + h * n_.hkv / n_.hq) * n_.d);
  }
  std::size_t v(Index b, Index j, Index h) const {
    return at(((b * n_.tk + j) * n_.hkv + h * n_.hkv / n_.hq) * n_.dv);
  }
  std::size_t row_number(Index b, Index h, Index i) const { return at((b * n_.hq + h) * n_.tq + i); }
  template <class U>
  std::size_t pair(const PairTensor<U>& x, Index b, Index h, Index i, Index j) const {
    return at((((x.b == 1 ? 0 : b) * x.h + (x.h == 1 ? 0 : h)) * n_.tq + i) * n_.tk + j);
  }

  // The sequence that query i belongs to.
  Span sequence(Index b, Index i) const {
    for (std::size_t s = 0; s + 1 < c_.cu_q.size(); ++s) {
      if (c_.cu_q[s] <= i && i < c_.cu_q[s + 1])
        return {c_.cu_q[s], c_.cu_q[s + 1], c_.cu_k[s], c_.cu_k[s + 1]};
    }
    return {0, n_.tq, 0, c_.k_lengths.empty() ? n_.tk : c_.k_lengths[at(b)]};
  }
  // Where query i stands among the keys.
  Index position(const Span& s, Index i) const {
    const bool bottom_right = c_.options.align == kernels::Align::bottom_right;
    return s.k0 + i - s.q0 + (bottom_right ? (s.k1 - s.k0) - (s.q1 - s.q0) : 0);
  }
  bool sees(Index b, Index h, Index i, Index j) const {
    const auto& o = c_.options;
    const Span s = sequence(b, i);
    const Index ahead = j - position(s, i);
    if (j < s.k0 || j >= s.k1) return false;
    if (o.causal && ahead > 0) return false;
    if (o.window.left && ahead < -*o.window.left) return false;
    if (o.window.right && ahead > *o.window.right) return false;
    return c_.mask.data.empty() || c_.mask.data[pair(c_.mask, b, h, i, j)] != 0;
  }
  double kept(std::size_t row, Index j) const {
    if (c_.options.dropout == 0) return 1;
    const auto words = c_.options.dropout_key.words(static_cast<std::uint64_t>(j / 4), row);
    const bool keep = words[at(j % 4)] >= std::floor(c_.options.dropout * 4294967296.0);
    return keep ? 1 / (1 - c_.options.dropout) : 0;
  }

  Score score(Index b, Index h, Index i, Index j) const {
    const double scale =
        rounded(c_.options.scale.value_or(n_.d == 0 ? 1 : 1 / std::sqrt(static_cast<double>(n_.d))));
    double s = 0, slope = scale;
    for (std::size_t d = 0; d < at(n_.d); ++d) s += c_.q[q(b, i, h) + d] * c_.k[k(b, j, h) + d];
    s = rounded(rounded(s) * scale);
    if (c_.options.softcap) {
      const double cap = *c_.options.softcap, t = std::tanh(s / cap);
      s = rounded(cap * t);
      slope *= 1 - t * t;
    }
    if (!c_.bias.data.empty()) s = rounded(s + c_.bias.data[pair(c_.bias, b, h, i, j)]);
    const Index ahead = j - position(sequence(b, i), i);
    if (!c_.alibi.empty()) s = rounded(s - c_.alibi[at(h)] * static_cast<double>(std::abs(ahead)));
    return {.j = j, .s = s, .slope = slope, .kept = kept(row_number(b, h, i), j)};
  }

  // Whether a query sees none of the keys: a bias of −inf hides a key from it. Scores that are all −inf for
  // another reason come from an Inf in q or k, and have no softmax.
  bool blind(Index b, Index h, Index i, const std::vector<Score>& scores) const {
    return std::all_of(scores.begin(), scores.end(), [&](const Score& s) {
      return !c_.bias.data.empty() &&
             c_.bias.data[pair(c_.bias, b, h, i, s.j)] == -std::numeric_limits<double>::infinity();
    });
  }

  // One query: its output, its gradient, and what it adds to the gradients of the keys and values it sees.
  void row(Index b, Index h, Index i) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    std::vector<Score> scores;
    for (Index j = 0; j < n_.tk; ++j) {
      if (sees(b, h, i, j)) scores.push_back(score(b, h, i, j));
    }
    const double sink = c_.sinks.empty() ? -kInfinity : c_.sinks[at(h)];
    if (blind(b, h, i, scores)) {  // the sink is all that there is
      r_.lse[row_number(b, h, i)] = sink;
      if (sink != -kInfinity) backward(b, h, i, {}, std::exp(sink - sink));
      return;
    }
    double max = sink;
    for (const Score& s : scores) max = std::max(max, s.s);
    double sum = std::exp(sink - max);
    for (Score& s : scores) sum += s.p = std::exp(s.s - max);
    for (Score& s : scores) s.p /= sum;
    r_.lse[row_number(b, h, i)] = max + std::log(sum);
    backward(b, h, i, scores, std::exp(sink - max) / sum);
  }

  void backward(Index b, Index h, Index i, const std::vector<Score>& scores, double p_sink) {
    std::vector<double> dp;
    for (const Score& s : scores) {
      double product = 0;
      for (std::size_t d = 0; d < at(n_.dv); ++d) {
        const double dout = c_.dout[o(b, i, h) + d], value = c_.v[v(b, s.j, h) + d];
        r_.out[o(b, i, h) + d] += s.kept * s.p * value;
        r_.dv[v(b, s.j, h) + d] += s.kept * s.p * dout;
        product += dout * value;
      }
      dp.push_back(s.kept * product);
    }
    // ∂p_c/∂s_a = p_c ([a = c] − p_a), ∂lse/∂s_a = p_a. The sink is one more score, whose p has no value.
    double mean = c_.dlse.empty() ? 0 : -c_.dlse[row_number(b, h, i)];
    for (std::size_t c = 0; c < scores.size(); ++c) mean += scores[c].p * dp[c];
    if (!c_.sinks.empty()) r_.dsinks[at(h)] -= p_sink * mean;
    for (std::size_t a = 0; a < scores.size(); ++a) {
      const Score& s = scores[a];
      const double ds = s.p * (dp[a] - mean);
      if (!c_.bias.data.empty()) r_.dbias[pair(c_.bias, b, h, i, s.j)] += ds;
      for (std::size_t d = 0; d < at(n_.d); ++d) {
        r_.dq[q(b, i, h) + d] += s.slope * ds * c_.k[k(b, s.j, h) + d];
        r_.dk[k(b, s.j, h) + d] += s.slope * ds * c_.q[q(b, i, h) + d];
      }
    }
  }

  const AttentionCase& c_;
  AttentionSizes n_;
  AttentionResult<double> r_ = {};
};

/// Forward and backward of one case.
template <class T = double>
AttentionResult<double> reference(const AttentionCase& c) {
  return AttentionReference<T>(c).run();
}

}  // namespace tilegrad::test
