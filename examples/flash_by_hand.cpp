// Flash attention as on paper: forward and backward in plain loops over tiles. The vector code in
// kernels/attention/ computes the same, and docs/flash_attention.md derives it. The program compares itself
// with the library, in double, where two correct answers agree to many digits, and fails if they do not.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "tilegrad/attention.h"

namespace {

using tilegrad::Index;

constexpr Index kTile = 16;  // queries in a tile, and keys in a tile

// (T, H, D): one vector for each token and head.
struct Heads {
  Index time, heads, dim;
  std::vector<double> data = std::vector<double>(time * heads * dim);
  double* at(Index t, Index h) { return data.data() + (t * heads + h) * dim; }
};

struct Problem {
  Index tq, tk, hq, hkv, dim;
  Heads q{tq, hq, dim}, k{tk, hkv, dim}, v{tk, hkv, dim}, out{tq, hq, dim}, dout{tq, hq, dim};
  Heads dq{tq, hq, dim}, dk{tk, hkv, dim}, dv{tk, hkv, dim};
  std::vector<double> lse = std::vector<double>(hq * tq);
  double scale = 1 / std::sqrt(static_cast<double>(dim));

  // GQA: consecutive query heads share a head of keys and values.
  Index kv_head(Index h) const { return h / (hq / hkv); }
  // The causal mask: query i sees the keys j < visible(i). The last query sees all of them.
  Index visible(Index i) const { return std::max<Index>(i + tk - tq + 1, 0); }
};

double dot(const double* x, const double* y, Index n) {
  double sum = 0;
  for (Index c = 0; c < n; ++c) sum += x[c] * y[c];
  return sum;
}
// y += w x
void add(double* y, double w, const double* x, Index n) {
  for (Index c = 0; c < n; ++c) y[c] += w * x[c];
}

void forward(Problem& a, Index h) {
  const Index hk = a.kv_head(h);
  for (Index q0 = 0; q0 < a.tq; q0 += kTile) {
    const Index q1 = std::min(q0 + kTile, a.tq);
    // Of the keys so far: m = max s and l = Σ exp(s − m) for each query; `out` holds Σ exp(s − m) v.
    double m[kTile], l[kTile] = {};
    std::fill_n(m, kTile, -std::numeric_limits<double>::infinity());
    for (Index k0 = 0; k0 < a.visible(q1 - 1); k0 += kTile) {  // the tiles beyond are fully masked: skipped
      for (Index i = q0, r = 0; i < q1; ++i, ++r) {
        const Index k1 = std::min(k0 + kTile, a.visible(i));  // the diagonal cuts this row of the tile
        if (k1 <= k0) continue;
        double s[kTile], new_m = m[r];
        for (Index j = k0; j < k1; ++j) {
          s[j - k0] = a.scale * dot(a.q.at(i, h), a.k.at(j, hk), a.dim);
          new_m = std::max(new_m, s[j - k0]);
        }
        const double alpha = std::exp(m[r] - new_m);  // 0 at the first keys, where m is −∞
        l[r] *= alpha;
        for (Index c = 0; c < a.dim; ++c) a.out.at(i, h)[c] *= alpha;
        for (Index j = k0; j < k1; ++j) {
          const double p = std::exp(s[j - k0] - new_m);
          l[r] += p;
          add(a.out.at(i, h), p, a.v.at(j, hk), a.dim);
        }
        m[r] = new_m;
      }
    }
    for (Index i = q0, r = 0; i < q1; ++i, ++r) {
      a.lse[h * a.tq + i] = m[r] + std::log(l[r]);  // −∞ if no key is visible; then `out` stays 0
      for (Index c = 0; l[r] > 0 && c < a.dim; ++c) a.out.at(i, h)[c] /= l[r];
    }
  }
}

// Forward kept lse, one number a query, in place of P: a tile computes its part of P again from Q, K and lse.
void backward(Problem& a, Index h) {
  const Index hk = a.kv_head(h);
  std::vector<double> delta(a.tq);  // Σ_j p_j dp_j of each query: known before any tile is
  for (Index i = 0; i < a.tq; ++i) delta[i] = dot(a.dout.at(i, h), a.out.at(i, h), a.dim);
  for (Index k0 = 0; k0 < a.tk; k0 += kTile) {
    for (Index q0 = 0; q0 < a.tq; q0 += kTile) {
      for (Index i = q0; i < std::min(q0 + kTile, a.tq); ++i) {
        const double *q = a.q.at(i, h), *dout = a.dout.at(i, h);
        for (Index j = k0; j < std::min(k0 + kTile, a.visible(i)); ++j) {
          const double *k = a.k.at(j, hk), *v = a.v.at(j, hk);
          const double p = std::exp(a.scale * dot(q, k, a.dim) - a.lse[h * a.tq + i]);
          const double dp = dot(dout, v, a.dim);
          const double ds = p * (dp - delta[i]) * a.scale;
          add(a.dv.at(j, hk), p, dout, a.dim);  // dV += Pᵀ dO
          add(a.dk.at(j, hk), ds, q, a.dim);    // dK += dSᵀ Q
          add(a.dq.at(i, h), ds, k, a.dim);     // dQ += dS K
        }
      }
    }
  }
}

// Prints the largest difference, and says whether none is above `allowed`.
bool agree(const char* what, const std::vector<double>& mine, const tilegrad::Tensor& library,
           double allowed) {
  const auto theirs = library.view<double>();
  double largest = 0;
  bool close = true;
  for (std::size_t i = 0; i < mine.size(); ++i) {
    const double difference = mine[i] == theirs[i] ? 0 : std::abs(mine[i] - theirs[i]);  // −∞ equals −∞
    largest = std::fmax(largest, difference);
    close &= difference <= allowed;  // false for NaN
  }
  std::printf("  %-4s largest difference %.1e, allowed %.1e\n", what, largest, allowed);
  return close;
}

bool compare(Index tq, Index tk) {
  using namespace tilegrad;
  Problem a{.tq = tq, .tk = tk, .hq = 4, .hkv = 2, .dim = 24};
  std::uint64_t seed = 0;
  const auto fill = [&seed](Heads& x) {
    const Tensor t = Tensor::uniform({1, x.time, x.heads, x.dim}, Dtype::f64, RandomKey{++seed});
    std::ranges::copy(t.view<double>(), x.data.begin());
    return Var::leaf(t);
  };
  const Var q = fill(a.q), k = fill(a.k), v = fill(a.v), dout = fill(a.dout);
  Tape tape;
  const auto [out, lse] = attention_with_lse(q, k, v, AttentionKernel::flash, {.causal = true});
  tape.backward(out, dout.value());
  for (Index h = 0; h < a.hq; ++h) {
    forward(a, h);
    backward(a, h);
  }

  // Every input lies in [−1, 1). A sum of n terms is off by at most n u times the sum of their absolute
  // values, with u = 2⁻⁵³. So s, at most √D, is off by D √D u; lse by (D √D + T) u; p, relatively, by
  // (2 D √D + T) u; out by T u more than p; delta by D u more than out; ds by as much as p and delta; dq and
  // dk by T u more than ds. Together that is at most 4 (T + D √D + D) u, for each of the two sides.
  const double d = static_cast<double>(a.dim), root = std::sqrt(d), keys = static_cast<double>(tk);
  const double queries = static_cast<double>(tq * a.hq / a.hkv);  // that add to one row of dK and dV
  const double u = std::numeric_limits<double>::epsilon() / 2;
  const double allowed = 2 * u * 4 * (std::max(queries, keys) + d * root + d);
  std::printf("%td queries, %td keys\n", tq, tk);
  bool same = agree("out", a.out.data, out.value(), allowed);
  same &= agree("lse", a.lse, lse.value(), allowed * (root + std::log(keys)));
  same &= agree("dq", a.dq.data, q.grad(), allowed * 2 * root);
  same &= agree("dk", a.dk.data, k.grad(), allowed * 2 * root * queries);
  same &= agree("dv", a.dv.data, v.grad(), allowed * queries);
  return same;
}

}  // namespace

int main() {
  bool same = true;
  for (const auto& [tq, tk] : {std::pair<Index, Index>{100, 100}, {37, 100}, {100, 37}})
    same &= compare(tq, tk);
  return same ? 0 : 1;
}
