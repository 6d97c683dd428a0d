#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/parallel.h"
#include "tests/attention_oracle.h"

/// Runs the kernels on the oracle's problems.
namespace tilegrad::test {

inline std::vector<double> normal(std::size_t n, std::uint64_t seed) {
  std::vector<double> x(n);
  RandomStream stream(RandomKey{seed});
  // Rounded to float, so that both types see the same numbers.
  for (double& e : x) e = static_cast<double>(static_cast<float>(stream.normal()));
  return x;
}

inline OracleInputs random_problem(const OracleSizes& n, const kernels::AttentionOptions& options = {}) {
  OracleInputs in;
  in.n = n;
  in.options = options;
  in.q = normal(static_cast<std::size_t>(n.b * n.tq * n.hq * n.d), 1);
  in.k = normal(static_cast<std::size_t>(n.b * n.tk * n.hkv * n.d), 2);
  in.v = normal(static_cast<std::size_t>(n.b * n.tk * n.hkv * n.dv), 3);
  in.dout = normal(static_cast<std::size_t>(n.b * n.tq * n.hq * n.dv), 4);
  return in;
}
inline void add_bias(OracleInputs& in, Index bs, Index hs) {
  in.bias_b = bs, in.bias_h = hs;
  in.bias = normal(static_cast<std::size_t>(bs * hs * in.n.tq * in.n.tk), 5);
}
inline void add_mask(OracleInputs& in, Index bs, Index hs, double hidden = 0.4) {
  in.mask_b = bs, in.mask_h = hs;
  RandomStream stream(RandomKey{6});
  in.mask.resize(static_cast<std::size_t>(bs * hs * in.n.tq * in.n.tk));
  for (auto& m : in.mask) m = stream.uniform() < hidden ? 0 : 1;
}
inline void add_alibi(OracleInputs& in) {
  for (Index h = 0; h < in.n.hq; ++h) in.alibi.push_back(std::ldexp(1.0, static_cast<int>(-2 - h)));
}
inline void add_sinks(OracleInputs& in) { in.sinks = normal(static_cast<std::size_t>(in.n.hq), 7); }
inline void add_dlse(OracleInputs& in) {
  in.dlse = normal(static_cast<std::size_t>(in.n.b * in.n.hq * in.n.tq), 8);
}

enum class Which { naive, flash };
inline constexpr Which kBoth[] = {Which::naive, Which::flash};
inline std::ostream& operator<<(std::ostream& s, Which which) {
  return s << (which == Which::naive ? "naive" : "flash");
}

template <class T>
struct Results {
  std::vector<T> out, lse, dq, dk, dv, dbias, dsinks;
  bool operator==(const Results&) const = default;
};

/// Outputs begin as NaN, so that a place that is not written shows.
template <class T>
Results<T> run_kernel(Which which, const OracleInputs& in) {
  const OracleSizes& n = in.n;
  const auto narrow = [](const auto& x) { return std::vector<T>(x.begin(), x.end()); };
  const auto q = narrow(in.q), k = narrow(in.k), v = narrow(in.v), dout = narrow(in.dout),
             dlse = narrow(in.dlse), bias = narrow(in.bias), alibi = narrow(in.alibi),
             sinks = narrow(in.sinks);
  const auto nan = [](std::size_t size) { return std::vector<T>(size, std::numeric_limits<T>::quiet_NaN()); };
  Results<T> r = {nan(dout.size()), nan(static_cast<std::size_t>(n.b * n.hq * n.tq)),
                  nan(q.size()),    nan(k.size()),
                  nan(v.size()),    nan(bias.size()),
                  nan(sinks.size())};
  const auto pairs = [&](auto* data, Index bs,
                         Index hs) -> kernels::Pairs<std::remove_pointer_t<decltype(data)>> {
    return {data, bs == 1 ? 0 : hs * n.tq * n.tk, hs == 1 ? 0 : n.tq * n.tk, n.tk};
  };
  kernels::AttentionInputs<T> inputs;
  inputs.q = {q.data(), n.b, n.tq, n.hq, n.d};
  inputs.k = {k.data(), n.b, n.tk, n.hkv, n.d};
  inputs.v = {v.data(), n.b, n.tk, n.hkv, n.dv};
  inputs.alibi = alibi;
  inputs.sinks = sinks;
  inputs.k_lengths = in.k_lengths;
  inputs.cu_q = in.cu_q;
  inputs.cu_k = in.cu_k;
  if (!bias.empty()) inputs.bias = pairs(bias.data(), in.bias_b, in.bias_h);
  if (!in.mask.empty()) inputs.mask = pairs(in.mask.data(), in.mask_b, in.mask_h);
  kernels::AttentionGrads<T> grads;
  grads.dq = {r.dq.data(), n.b, n.tq, n.hq, n.d};
  grads.dk = {r.dk.data(), n.b, n.tk, n.hkv, n.d};
  grads.dv = {r.dv.data(), n.b, n.tk, n.hkv, n.dv};
  if (!bias.empty()) grads.dbias = pairs(r.dbias.data(), in.bias_b, in.bias_h);
  grads.dsinks = r.dsinks;
  const kernels::Heads<T> out(r.out.data(), n.b, n.tq, n.hq, n.dv);
  const kernels::Heads<const T> dout_heads(dout.data(), n.b, n.tq, n.hq, n.dv);
  if (which == Which::flash) {
    kernels::flash_attention<T>(out, r.lse, inputs, in.options);
    kernels::flash_attention_backward<T>(grads, dout_heads, inputs, out, r.lse, in.options, dlse);
  } else {
    auto p = nan(r.lse.size() * static_cast<std::size_t>(n.tk));
    kernels::naive_attention<T>(out, r.lse, p, inputs, in.options);
    kernels::naive_attention_backward<T>(grads, dout_heads, inputs, p, in.options, r.lse, dlse);
  }
  return r;
}

/// The largest difference, relative to the largest finite element of b (at least 0.1). Infinite if NaN or Inf
/// stand in different places.
template <class A, class B>
double far(const std::vector<A>& a, const std::vector<B>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0, size = 0.1;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    if (std::isfinite(x) != std::isfinite(y)) return std::numeric_limits<double>::infinity();
    if (!std::isfinite(x)) continue;
    largest = std::max(largest, std::abs(x - y));
    size = std::max(size, std::abs(y));
  }
  return largest / size;
}

template <class A, class B>
void check_near(const A& a, const B& b, double tolerance = 1e-12) {
  CHECK(far(a.out, b.out) <= tolerance);
  CHECK(far(a.lse, b.lse) <= tolerance);
  CHECK(far(a.dq, b.dq) <= tolerance);
  CHECK(far(a.dk, b.dk) <= tolerance);
  CHECK(far(a.dv, b.dv) <= tolerance);
  CHECK(far(a.dbias, b.dbias) <= tolerance);
  CHECK(far(a.dsinks, b.dsinks) <= tolerance);
}

}  // namespace tilegrad::test
