#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "tests/attention_reference.h"
#include "tests/kernels/checks.h"

/// Attention problems with random inputs, and the kernels run on them forward and backward.
namespace tilegrad::test {

using kernels::Align;
using kernels::AttentionOptions;
using kernels::HeadsView;
using kernels::ScoreView;
using kernels::Write;

enum class Kernel { naive, flash };
inline constexpr Kernel kKernels[] = {Kernel::naive, Kernel::flash};
/// How doctest prints it.
inline doctest::String toString(Kernel kernel) { return kernel == Kernel::naive ? "naive" : "flash"; }

// Random inputs
// ------------------------------------------------------------------------------------------------------

/// Normal random numbers, rounded to float, so that kernels of both types see the same.
inline std::vector<double> random_numbers(Index n, std::uint64_t seed) {
  const auto x = random<float>(n, seed);
  return {x.begin(), x.end()};
}

/// q, k, v and dout.
inline AttentionCase random_case(const AttentionSizes& n, const AttentionOptions& options = {},
                                 std::uint64_t seed = 0) {
  AttentionCase c = {.n = n, .options = options};
  c.q = random_numbers(n.q_size(), seed + 1);
  c.k = random_numbers(n.k_size(), seed + 2);
  c.v = random_numbers(n.v_size(), seed + 3);
  c.dout = random_numbers(n.out_size(), seed + 4);
  return c;
}

/// A bias of shape (b, h, Tq, Tk).
inline void add_bias(AttentionCase& c, Index b, Index h) {
  c.bias = {.b = b, .h = h, .data = random_numbers(b * h * c.n.tq * c.n.tk, 5)};
}
/// A mask of shape (b, h, Tq, Tk) that hides four pairs of ten.
inline void add_mask(AttentionCase& c, Index b, Index h) {
  c.mask = {
      .b = b, .h = h, .data = std::vector<std::uint8_t>(static_cast<std::size_t>(b * h * c.n.tq * c.n.tk))};
  RandomStream stream(RandomKey{6});
  for (auto& seen : c.mask.data) seen = stream.uniform() < 0.6;
}
inline void add_alibi(AttentionCase& c) {
  for (Index h = 0; h < c.n.hq; ++h) c.alibi.push_back(std::ldexp(1.0, static_cast<int>(-2 - h)));
}
inline void add_sinks(AttentionCase& c) { c.sinks = random_numbers(c.n.hq, 7); }
inline void add_dlse(AttentionCase& c) { c.dlse = random_numbers(c.n.lse_size(), 8); }
inline void add_dropout(AttentionCase& c, double p) {
  c.options.dropout = p;
  c.options.dropout_key = RandomKey{99};
}

// Running the kernels
// ------------------------------------------------------------------------------------------------

/// Contiguous tensors as the kernels see them.
template <class V>
auto q_heads(const AttentionSizes& n, V& x) {
  return HeadsView(x.data(), n.b, n.tq, n.hq, n.d);
}
template <class V>
auto k_heads(const AttentionSizes& n, V& x) {
  return HeadsView(x.data(), n.b, n.tk, n.hkv, n.d);
}
template <class V>
auto v_heads(const AttentionSizes& n, V& x) {
  return HeadsView(x.data(), n.b, n.tk, n.hkv, n.dv);
}
template <class V>
auto out_heads(const AttentionSizes& n, V& x) {
  return HeadsView(x.data(), n.b, n.tq, n.hq, n.dv);
}
/// A tensor of shape (b, h, Tq, Tk); null if x is empty.
template <class V>
auto pairs(const AttentionSizes& n, Index b, Index h, V& x) {
  using T = std::remove_pointer_t<decltype(x.data())>;
  if (x.empty()) return ScoreView<T>();
  return ScoreView<T>{x.data(), b == 1 ? 0 : h * n.tq * n.tk, h == 1 ? 0 : n.tq * n.tk, n.tk};
}

/// The inputs of a case in the kernels' type.
template <class T>
struct Operands {
  AttentionSizes n;
  std::vector<T> q, k, v, dout, dlse, alibi, sinks;
  PairTensor<T> bias;
  PairTensor<std::uint8_t> mask;
  std::vector<std::int32_t> k_lengths, cu_q, cu_k;

  explicit Operands(const AttentionCase& c)
      : n(c.n),
        q(narrow(c.q)),
        k(narrow(c.k)),
        v(narrow(c.v)),
        dout(narrow(c.dout)),
        dlse(narrow(c.dlse)),
        alibi(narrow(c.alibi)),
        sinks(narrow(c.sinks)),
        bias({.b = c.bias.b, .h = c.bias.h, .data = narrow(c.bias.data)}),
        mask(c.mask),
        k_lengths(c.k_lengths),
        cu_q(c.cu_q),
        cu_k(c.cu_k) {}

  kernels::AttentionInputs<T> inputs() const {
    return {.q = q_heads(n, q),
            .k = k_heads(n, k),
            .v = v_heads(n, v),
            .bias = pairs(n, bias.b, bias.h, bias.data),
            .mask = pairs(n, mask.b, mask.h, mask.data),
            .alibi = alibi,
            .sinks = sinks,
            .k_lengths = k_lengths,
            .cu_q = cu_q,
            .cu_k = cu_k};
  }

 private:
  static std::vector<T> narrow(const std::vector<double>& x) { return {x.begin(), x.end()}; }
};

/// Every number of the result set to the same.
template <class T>
AttentionResult<T> filled_result(const AttentionCase& c, T value) {
  const auto filled = [value](Index n) { return std::vector<T>(static_cast<std::size_t>(n), value); };
  return {filled(c.n.out_size()),     filled(c.n.lse_size()), filled(c.n.q_size()),
          filled(c.n.k_size()),       filled(c.n.v_size()),   filled(std::ssize(c.bias.data)),
          filled(std::ssize(c.sinks))};
}

/// Where the gradients of a result lie; all of them are wanted and overwritten.
template <class T>
kernels::AttentionGrads<T> grads_of(const AttentionCase& c, AttentionResult<T>& r) {
  return {.dq = {q_heads(c.n, r.dq)},
          .dk = {k_heads(c.n, r.dk)},
          .dv = {v_heads(c.n, r.dv)},
          .dbias = {pairs(c.n, c.bias.b, c.bias.h, r.dbias)},
          .dsinks = {r.dsinks}};
}

/// Runs one kernel on views, forward and backward: outputs first, as the kernels themselves.
template <class T>
void run_views(Kernel kernel, HeadsView<T> out, std::vector<T>& lse, const kernels::AttentionGrads<T>& grads,
               HeadsView<const T> dout, const kernels::AttentionInputs<T>& in,
               const AttentionOptions& options, const std::vector<T>& dlse = {}) {
  if (kernel == Kernel::flash) {
    kernels::flash_attention<T>(out, lse, in, options);
    kernels::flash_attention_backward<T>(grads, dout, in, out, lse, options, dlse);
  } else {
    std::vector<T> p(lse.size() * static_cast<std::size_t>(in.k.time), std::numeric_limits<T>::quiet_NaN());
    kernels::naive_attention<T>(out, lse, p, in, options);
    kernels::naive_attention_backward<T>(grads, dout, in, p, options, lse, dlse);
  }
}

/// Runs one kernel on a case. Outputs begin as NaN, so that a place that is not written shows.
template <class T = double>
AttentionResult<T> run(Kernel kernel, const AttentionCase& c) {
  const Operands<T> x(c);
  auto r = filled_result<T>(c, std::numeric_limits<T>::quiet_NaN());
  run_views<T>(kernel, out_heads(c.n, r.out), r.lse, grads_of(c, r), out_heads(c.n, x.dout), x.inputs(),
               c.options, x.dlse);
  return r;
}

// Comparing
// ----------------------------------------------------------------------------------------------------------

/// The largest difference, relative to the largest finite element of b, which is taken to be 1 at least, the
/// size of the inputs: a query that sees one key has gradient 0 but for rounding. Infinite if one is finite
/// where the other is NaN or Inf.
template <class A, class B>
double difference(const std::vector<A>& a, const std::vector<B>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0, size = 1;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    if (std::isfinite(x) && std::isfinite(y)) {
      largest = std::max(largest, std::abs(x - y));
      size = std::max(size, std::abs(y));
    } else if (std::isfinite(x) != std::isfinite(y)) {
      return std::numeric_limits<double>::infinity();
    }
  }
  return largest / size;
}

/// Rows of (B, Hq, Tq) that see nothing.
template <class T>
std::vector<bool> blind_rows(const AttentionResult<T>& r) {
  std::vector<bool> blind;
  for (const T lse : r.lse) blind.push_back(lse == -std::numeric_limits<T>::infinity());
  return blind;
}

template <class A, class B>
void check_close(const AttentionResult<A>& a, const AttentionResult<B>& b, double tolerance = 1e-12) {
  CHECK(difference(a.out, b.out) <= tolerance);
  CHECK(difference(a.lse, b.lse) <= tolerance);
  CHECK(blind_rows(a) == blind_rows(b));
  CHECK(difference(a.dq, b.dq) <= tolerance);
  CHECK(difference(a.dk, b.dk) <= tolerance);
  CHECK(difference(a.dv, b.dv) <= tolerance);
  CHECK(difference(a.dbias, b.dbias) <= tolerance);
  CHECK(difference(a.dsinks, b.dsinks) <= tolerance);
}

template <class T>
bool same_bits(const AttentionResult<T>& a, const AttentionResult<T>& b) {
  return same_bits(a.out, b.out) && same_bits(a.lse, b.lse) && same_bits(a.dq, b.dq) &&
         same_bits(a.dk, b.dk) && same_bits(a.dv, b.dv) && same_bits(a.dbias, b.dbias) &&
         same_bits(a.dsinks, b.dsinks);
}

}  // namespace tilegrad::test
