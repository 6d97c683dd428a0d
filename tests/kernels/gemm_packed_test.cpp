#include <doctest/doctest.h>

#include "tests/kernels/products.h"
#include "tests/kernels/simd_targets.h"
#include "tilegrad/kernels/gemm/packed.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

namespace {

constexpr Op kOps[] = {Op::none, Op::transpose};

void check_product(const Shape& s, Op op_b, float alpha, float beta) {
  CAPTURE(s.m);
  CAPTURE(s.n);
  CAPTURE(s.k);
  CAPTURE(static_cast<int>(op_b));
  const Padded<float> a(s.m, s.k, 1), b = operand<float>(s.k, s.n, op_b, 2);
  Padded<float> c(s.m, s.n, 3);
  if (beta == 0) c.fill(std::numeric_limits<float>::quiet_NaN());
  const auto sums = expected(s, alpha, a, Op::none, b, op_b, beta, c);
  packed::multiply({view(c), alpha, view(a), view(b), op_b, beta});
  check_close(c.dense(), sums, static_cast<double>(s.k) + 3);
  CHECK(c.room_is_untouched());
}

void check_ops(const Shape& s, float alpha, float beta) {
  for (const Op op_b : kOps) check_product(s, op_b, alpha, beta);
}

}  // namespace

TEST_CASE("gemm: packed products agree with plain loops for every number of rows, columns and terms") {
  on_each_target([] {
    for (Index s = 1; s <= 70; ++s) check_ops({s, 71 - s, (7 * s) % 71}, -0.75f, s % 2 == 0 ? 0.5f : 0);
    for (Index s = 1; s <= 70; ++s) check_ops({(31 * s) % 71, s, 1 + s % 9}, 1, 1);
  });
}

TEST_CASE("gemm: packed products agree with plain loops beyond each block") {
  on_each_target([] {
    // sums that are cut or just not, blocks of rows (of a second-level cache up to 2 MiB), blocks of columns
    for (const Index k : {127, 128, 129, 193, 256, 384, 385, 521}) check_ops({13, 37, k}, 0.5f, -2);
    check_ops({2053, 5, 131}, 1, 0);
    check_ops({7, 2111, 3}, 1, 0.5f);
  });
}

TEST_CASE("gemm: packed products that are cut into tasks agree with plain loops") {
  on_each_target([] {
    for (const Shape& s : {Shape{197, 263, 300}, Shape{389, 70, 131}, Shape{70, 389, 131}})
      check_ops(s, 1, 1);
  });
}

TEST_CASE("gemm: an element of a packed product has the same bits, wherever its row and column stand") {
  on_each_target([] {
    for (const Op op_b : kOps) {
      const Padded<float> a(120, 300, 1), b = operand<float>(300, 90, op_b, 2);
      Padded<float> whole(120, 90, 3), parts = whole;
      const packed::Product all = {view(parts), 0.75f, view(a), view(b), op_b, 0.5f};
      packed::multiply({view(whole), 0.75f, view(a), view(b), op_b, 0.5f});
      for (Index row = 0; row < 120; row += 7) {
        for (Index col = 0; col < 90; col += 11) {
          packed::multiply(all.part(row, std::min<Index>(7, 120 - row), col, std::min<Index>(11, 90 - col)));
        }
      }
      CHECK(same_bits(parts.dense(), whole.dense()));
    }
  });
}

TEST_CASE("gemm: packed products have the same bits on any number of threads") {
  on_each_target([] {
    for (const Shape& s : {Shape{768, 130, 128}, Shape{130, 900, 64}, Shape{128, 128, 768}}) {
      for (const Op op_b : kOps) {
        const Padded<float> a(s.m, s.k, 1), b = operand<float>(s.k, s.n, op_b, 2);
        check_threads([&] {
          Padded<float> c(s.m, s.n, 3);
          packed::multiply({view(c), 1, view(a), view(b), op_b, 1});
          return c.dense();
        });
      }
    }
  });
}

TEST_CASE("gemm: NaN and infinity pass through a packed product, into their row or column alone") {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  on_each_target([&] {
    for (const Op op_b : kOps) {
      Padded<float> a(41, 30, 1), b = operand<float>(30, 51, op_b, 2);
      a.at(7, 3) = nan;
      (op_b == Op::none ? b.at(4, 50) : b.at(50, 4)) = infinity;
      a.at(9, 4) = 0;  // times infinity
      Padded<float> c(41, 51, 3);
      packed::multiply({view(c), 1, view(a), view(b), op_b, 0});
      bool right = true;
      for (Index i = 0; i < c.rows; ++i) {
        for (Index j = 0; j < c.cols; ++j) {
          const bool is_nan = i == 7 || (i == 9 && j == 50);
          right = right && std::isnan(c(i, j)) == is_nan;
          right = right && std::isinf(c(i, j)) == (j == 50 && !is_nan);
        }
      }
      CHECK(right);
    }
  });
}

// What an address sanitizer sees: nothing lies after the last element.
TEST_CASE("gemm: packed products of tight matrices read and write nothing beyond them") {
  on_each_target([] {
    for (const Index n : {1, 5, 6, 15, 17, 29}) {
      const std::vector<float> a(static_cast<std::size_t>(n * 19), 1.0f),
          b(static_cast<std::size_t>(19 * n), 2.0f);
      for (const Op op_b : kOps) {
        std::vector<float> c(static_cast<std::size_t>(n * n));
        const bool transposed = op_b == Op::transpose;
        const Mat<const float> right(b.data(), transposed ? n : 19, transposed ? 19 : n);
        packed::multiply({Mat<float>(c.data(), n, n), 1, Mat<const float>(a.data(), n, 19), right, op_b, 0});
        CHECK(c == std::vector<float>(c.size(), 38.0f));
      }
    }
  });
}

TEST_CASE("gemm: the tasks of a packed product cover it, and are cut by its shape alone") {
  const packed::Blocking blocking = packed::blocking_for(6, 16);
  for (const Shape& s :
       {Shape{768, 128, 128}, Shape{1, 50257, 768}, Shape{50257, 768, 256}, Shape{97, 101, 4099}}) {
    packed::Product p;
    p.c = Mat<float>(nullptr, s.m, s.n);
    p.a = Mat<const float>(nullptr, s.m, s.k);
    p.b = Mat<const float>(nullptr, s.k, s.n);
    const packed::Pieces pieces = packed::cut(p, blocking);
    CHECK(pieces.rows * (pieces.row_pieces - 1) < s.m);
    CHECK(pieces.rows * pieces.row_pieces >= s.m);
    CHECK(pieces.cols * (pieces.col_pieces - 1) < s.n);
    CHECK(pieces.cols * pieces.col_pieces >= s.n);
    CHECK(pieces.tasks() >= 2);
  }
}
