#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <ostream>
#include <vector>

#include "base/random.h"
#include "kernels/attention.h"
#include "tests/attention_reference.h"

/// One attention problem with random inputs, and the kernels run on it forward and backward.
namespace tilegrad::test {

using kernels::Align;
using kernels::AttentionOptions;
using kernels::Heads;
using kernels::Write;

enum class Kernel { naive, flash };
inline constexpr Kernel kKernels[] = {Kernel::naive, Kernel::flash};
inline std::ostream& operator<<(std::ostream& s, Kernel kernel) {
  return s << (kernel == Kernel::naive ? "naive" : "flash");
}

template <class T>
std::vector<T> random_vector(Index n, std::uint64_t seed) {
  std::vector<T> x(static_cast<std::size_t>(n));
  RandomStream stream(RandomKey{seed});
  for (T& e : x) e = static_cast<T>(stream.normal());
  return x;
}

template <class T>
std::vector<T> filled(Index n, T value) {
  return std::vector<T>(static_cast<std::size_t>(n), value);
}

/// Runs one kernel on views: outputs first, as the kernels themselves.
template <class T>
void run_views(Kernel kernel, Heads<T> out, std::vector<T>& lse, const kernels::AttentionGrads<T>& grads,
               Heads<const T> dout, const kernels::AttentionInputs<T>& in, const AttentionOptions& options) {
  lse = filled<T>(out.batch * out.heads * out.time, std::numeric_limits<T>::quiet_NaN());
  if (kernel == Kernel::flash) {
    kernels::flash_attention<T>(out, lse, in, options);
    kernels::flash_attention_backward<T>(grads, dout, in, out, lse, options);
  } else {
    auto p = filled<T>(std::ssize(lse) * in.k.time, std::numeric_limits<T>::quiet_NaN());
    kernels::naive_attention<T>(out, lse, p, in, options);
    kernels::naive_attention_backward<T>(grads, dout, in, p, options);
  }
}

template <class T>
struct AttentionCase {
  AttentionSizes n;
  AttentionOptions options = {};
  std::uint64_t seed = 0;
  std::vector<T> q = random_vector<T>(n.q_size(), seed + 1);
  std::vector<T> k = random_vector<T>(n.k_size(), seed + 2);
  std::vector<T> v = random_vector<T>(n.v_size(), seed + 3);
  std::vector<T> dout = random_vector<T>(n.out_size(), seed + 4);

  Heads<T> q_heads(std::vector<T>& x) const { return {x.data(), n.b, n.tq, n.hq, n.d}; }
  Heads<T> k_heads(std::vector<T>& x) const { return {x.data(), n.b, n.tk, n.hkv, n.d}; }
  Heads<T> v_heads(std::vector<T>& x) const { return {x.data(), n.b, n.tk, n.hkv, n.dv}; }
  Heads<T> out_heads(std::vector<T>& x) const { return {x.data(), n.b, n.tq, n.hq, n.dv}; }

  /// Outputs begin as NaN, so that a place that is not written shows.
  AttentionResult<T> run(Kernel kernel) {
    const T nan = std::numeric_limits<T>::quiet_NaN();
    AttentionResult<T> r = {filled(n.out_size(), nan),
                            {},
                            filled(n.q_size(), nan),
                            filled(n.k_size(), nan),
                            filled(n.v_size(), nan)};
    const kernels::AttentionGrads<T> grads = {.dq = q_heads(r.dq), .dk = k_heads(r.dk), .dv = v_heads(r.dv)};
    run_views<T>(kernel, out_heads(r.out), r.lse, grads, out_heads(dout),
                 {.q = q_heads(q), .k = k_heads(k), .v = v_heads(v)}, options);
    return r;
  }

  AttentionResult<double> reference() const {
    const auto wide = [](const std::vector<T>& x) { return std::vector<double>(x.begin(), x.end()); };
    return AttentionReference(n, options, wide(q), wide(k), wide(v), wide(dout)).run();
  }
};

/// The largest difference, relative to the largest element of b, which is taken to be 0.1 at least: a query
/// that sees one key has gradient 0 but for rounding. Infinite if NaN or Inf stand in different places.
template <class A, class B>
double difference(const std::vector<A>& a, const std::vector<B>& b) {
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
void check_close(const AttentionResult<A>& a, const AttentionResult<B>& b, double tolerance = 1e-12) {
  CHECK(difference(a.out, b.out) <= tolerance);
  CHECK(difference(a.lse, b.lse) <= tolerance);
  CHECK(difference(a.dq, b.dq) <= tolerance);
  CHECK(difference(a.dk, b.dk) <= tolerance);
  CHECK(difference(a.dv, b.dv) <= tolerance);
}

template <class T>
bool operator==(const AttentionResult<T>& a, const AttentionResult<T>& b) {
  return a.out == b.out && a.lse == b.lse && a.dq == b.dq && a.dk == b.dk && a.dv == b.dv;
}

}  // namespace tilegrad::test
