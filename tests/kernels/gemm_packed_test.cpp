#include <doctest/doctest.h>

#include "tests/kernels/products.h"
#include "tests/kernels/simd_targets.h"
#include "tilegrad/kernels/gemm/packed.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

namespace {

constexpr Op kOps[] = {Op::none, Op::transpose};

template <class F>
void for_each_ops(F&& f) {
  for (const Op op_a : kOps) {
    for (const Op op_b : kOps) f(op_a, op_b);
  }
}

void check_product(const Shape& s, Op op_a, Op op_b, float alpha, float beta) {
  CAPTURE(s.m);
  CAPTURE(s.n);
  CAPTURE(s.k);
  CAPTURE(static_cast<int>(op_a));
  CAPTURE(static_cast<int>(op_b));
  const Padded<float> a = operand<float>(s.m, s.k, op_a, 1), b = operand<float>(s.k, s.n, op_b, 2);
  Padded<float> c(s.m, s.n, 3);
  if (beta == 0) c.fill(std::numeric_limits<float>::quiet_NaN());
  const auto sums = expected(s, alpha, a, op_a, b, op_b, beta, c);
  packed::multiply({view(c), alpha, view(a), op_a, view(b), op_b, beta});
  check_close(c.dense(), sums, static_cast<double>(s.k) + 3);
  CHECK(c.room_is_untouched());
}

void check_ops(const Shape& s, float alpha, float beta) {
  for_each_ops([&](Op op_a, Op op_b) { check_product(s, op_a, op_b, alpha, beta); });
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

TEST_CASE("gemm: a packed product adds its bias once, wherever sums and columns are cut") {
  on_each_target([] {
    for (const Shape& s : {Shape{3, 5, 7}, Shape{13, 37, 521}, Shape{70, 389, 131}, Shape{30, 2111, 1100}}) {
      for_each_ops([&](Op op_a, Op op_b) {
        const auto a = operand<float>(s.m, s.k, op_a, 1), b = operand<float>(s.k, s.n, op_b, 2);
        const auto bias = random<float>(s.n, 4);
        Padded<float> c(s.m, s.n, 3), added = c;
        packed::Product p = {view(c), 1, view(a), op_a, view(b), op_b, 0, bias.data()};
        packed::multiply(p);
        p.c = view(added);
        p.bias = nullptr;
        packed::multiply(p);
        for (Index i = 0; i < s.m; ++i) {
          for (Index j = 0; j < s.n; ++j) added.at(i, j) += bias[static_cast<std::size_t>(j)];
        }
        CHECK(same_bits(c.dense(), added.dense()));
        CHECK(c.room_is_untouched());
      });
    }
  });
}

// Too large for plain loops: against a product of doubles.
TEST_CASE("gemm: packed products of several blocks of b, in terms and in columns, are right") {
  on_each_target([] {
    const Shape s = {100, 2111, 1100};
    const Padded<float> a(s.k, s.m, 1), b(s.n, s.k, 2);
    Padded<float> c(s.m, s.n, 3);
    packed::multiply({view(c), 1, view(a), Op::transpose, view(b), Op::transpose, 0});
    const std::vector<float> as = a.dense(), bs = b.dense(), cs = c.dense();
    const std::vector<double> wide_a(as.begin(), as.end()), wide_b(bs.begin(), bs.end());
    std::vector<double> right(cs.size());
    gemm_serial<double>({right.data(), s.m, s.n}, 1, {wide_a.data(), s.k, s.m}, Op::transpose,
                        {wide_b.data(), s.n, s.k}, Op::transpose, 0);
    double largest = 0;
    for (std::size_t i = 0; i < right.size(); ++i) largest = std::max(largest, std::abs(cs[i] - right[i]));
    CHECK(largest < 1e-3);
    CHECK(c.room_is_untouched());
  });
}

TEST_CASE("gemm: an element of a packed product has the same bits, wherever its row and column stand") {
  on_each_target([] {
    for_each_ops([](Op op_a, Op op_b) {
      const Padded<float> a = operand<float>(120, 300, op_a, 1), b = operand<float>(300, 90, op_b, 2);
      Padded<float> whole(120, 90, 3), parts = whole;
      const packed::Product all = {view(parts), 0.75f, view(a), op_a, view(b), op_b, 0.5f};
      packed::multiply({view(whole), 0.75f, view(a), op_a, view(b), op_b, 0.5f});
      for (Index row = 0; row < 120; row += 7) {
        for (Index col = 0; col < 90; col += 11) {
          packed::multiply(all.part(row, std::min<Index>(7, 120 - row), col, std::min<Index>(11, 90 - col)));
        }
      }
      CHECK(same_bits(parts.dense(), whole.dense()));
    });
  });
}

TEST_CASE("gemm: packed products have the same bits on any number of threads") {
  on_each_target([] {
    for (const Shape& s : {Shape{768, 130, 128}, Shape{130, 900, 64}, Shape{128, 128, 768}}) {
      for_each_ops([&](Op op_a, Op op_b) {
        const Padded<float> a = operand<float>(s.m, s.k, op_a, 1), b = operand<float>(s.k, s.n, op_b, 2);
        check_threads([&] {
          Padded<float> c(s.m, s.n, 3);
          packed::multiply({view(c), 1, view(a), op_a, view(b), op_b, 1});
          return c.dense();
        });
      });
    }
  });
}

TEST_CASE("gemm: NaN and infinity pass through a packed product, into their row or column alone") {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  on_each_target([&] {
    for_each_ops([&](Op op_a, Op op_b) {
      Padded<float> a = operand<float>(41, 30, op_a, 1), b = operand<float>(30, 51, op_b, 2);
      (op_a == Op::none ? a.at(7, 3) : a.at(3, 7)) = nan;
      (op_b == Op::none ? b.at(4, 50) : b.at(50, 4)) = infinity;
      (op_a == Op::none ? a.at(9, 4) : a.at(4, 9)) = 0;  // times infinity
      Padded<float> c(41, 51, 3);
      packed::multiply({view(c), 1, view(a), op_a, view(b), op_b, 0});
      bool right = true;
      for (Index i = 0; i < c.rows; ++i) {
        for (Index j = 0; j < c.cols; ++j) {
          const bool is_nan = i == 7 || (i == 9 && j == 50);
          right = right && std::isnan(c(i, j)) == is_nan;
          right = right && std::isinf(c(i, j)) == (j == 50 && !is_nan);
        }
      }
      CHECK(right);
    });
  });
}

// What an address sanitizer sees: nothing lies after the last element.
TEST_CASE("gemm: packed products of tight matrices read and write nothing beyond them") {
  on_each_target([] {
    for (const Index n : {1, 5, 6, 15, 17, 29}) {
      const std::vector<float> a(static_cast<std::size_t>(n * 19), 1.0f),
          b(static_cast<std::size_t>(19 * n), 2.0f);
      for_each_ops([&](Op op_a, Op op_b) {
        std::vector<float> c(static_cast<std::size_t>(n * n));
        const auto shaped = [&](const std::vector<float>& x, bool n_by_19) {
          return Mat<const float>(x.data(), n_by_19 ? n : 19, n_by_19 ? 19 : n);
        };
        packed::multiply({Mat<float>(c.data(), n, n), 1, shaped(a, op_a == Op::none), op_a,
                          shaped(b, op_b == Op::transpose), op_b, 0});
        CHECK(c == std::vector<float>(c.size(), 38.0f));
      });
    }
  });
}

TEST_CASE("gemm: the tasks of a packed product cover it, and are cut by its shape alone") {
  const packed::Blocking avx2 = packed::blocking_for(6, 16), avx512 = packed::blocking_for(8, 32);
  for (const packed::Blocking& blocking : {avx2, avx512}) {
    for (const Shape& s :
         {Shape{768, 128, 128}, Shape{1, 50257, 768}, Shape{50257, 768, 256}, Shape{97, 101, 4099}}) {
      packed::Product p;
      p.c = Mat<float>(nullptr, s.m, s.n);
      p.a = Mat<const float>(nullptr, s.m, s.k);
      p.b = Mat<const float>(nullptr, s.k, s.n);
      const packed::BlockOfB b = packed::block_of_b(p, blocking);
      CHECK(b.cols % blocking.cols == 0);
      CHECK((b.terms == s.k || b.terms % blocking.part(s.k) == 0));
      CHECK(b.cols * b.terms <= (Index{1} << 19) + blocking.cols * b.terms);
      const packed::Pieces pieces = packed::cut(p, blocking);
      CHECK(pieces.rows * (pieces.row_pieces - 1) < s.m);
      CHECK(pieces.rows * pieces.row_pieces >= s.m);
      CHECK(pieces.cols * (pieces.col_pieces - 1) < s.n);
      CHECK(pieces.cols * pieces.col_pieces >= s.n);
      CHECK(pieces.tasks() >= 2);
    }
  }
}
