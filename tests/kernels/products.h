#pragma once

#include <vector>

#include "tests/kernels/checks.h"
#include "tilegrad/kernels/gemm.h"

/// Matrix products by their definition.
namespace tilegrad::test {

using kernels::Op;

/// c (m, n) of a sum over k.
struct Shape {
  Index m, n, k;
};

/// x of which op makes (rows, cols).
template <class T>
Padded<T> operand(Index rows, Index cols, Op op, std::uint64_t seed) {
  return op == Op::none ? Padded<T>(rows, cols, seed) : Padded<T>(cols, rows, seed);
}

double element(const auto& x, Op op, Index i, Index j) { return op == Op::none ? x(i, j) : x(j, i); }

/// alpha a b + beta c by the definition; c is not read if beta is 0.
template <class T>
std::vector<Sum> expected(const Shape& s, double alpha, const Padded<T>& a, Op op_a, const Padded<T>& b,
                          Op op_b, double beta, const Padded<T>& c) {
  std::vector<Sum> sums;
  for (Index i = 0; i < s.m; ++i) {
    for (Index j = 0; j < s.n; ++j) {
      Sum sum(beta == 0 ? 0 : beta * c(i, j));
      for (Index k = 0; k < s.k; ++k) sum.add(alpha * element(a, op_a, i, k) * element(b, op_b, k, j));
      sums.push_back(sum);
    }
  }
  return sums;
}

}  // namespace tilegrad::test
