#include "tilegrad/kernels/gemm.h"

#include <doctest/doctest.h>

#include "tests/kernels/products.h"
#include "tilegrad/base/error.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

namespace {

// The last four are cut into pieces: by rows, by columns, and as a weight's gradient with a long inner sum.
constexpr Shape kShapes[] = {{1, 1, 1},     {3, 5, 7},     {17, 33, 1},    {1, 100, 37},   {64, 1, 64},
                             {31, 29, 130}, {701, 41, 50}, {41, 1203, 50}, {130, 70, 300}, {97, 97, 770}};

}  // namespace

TEST_CASE_TEMPLATE("gemm: agrees with plain loops for every transposition, odd sizes and strides", T, float,
                   double) {
  for (const Shape& s : kShapes) {
    for (const Op op_a : {Op::none, Op::transpose}) {
      for (const Op op_b : {Op::none, Op::transpose}) {
        CAPTURE(s.m);
        CAPTURE(s.n);
        CAPTURE(s.k);
        const auto a = operand<T>(s.m, s.k, op_a, 1), b = operand<T>(s.k, s.n, op_b, 2);
        Padded<T> c(s.m, s.n, 3);
        const auto sums = expected(s, -0.75, a, op_a, b, op_b, 0.5, c);
        Padded<T> serial = c;
        gemm<T>(view(c), T(-0.75), view(a), op_a, view(b), op_b, T(0.5));
        gemm_serial<T>(view(serial), T(-0.75), view(a), op_a, view(b), op_b, T(0.5));
        check_close(c.dense(), sums, static_cast<double>(s.k) + 3);
        check_close(serial.dense(), sums, static_cast<double>(s.k) + 3);
        CHECK(c.room_is_untouched());
        CHECK(serial.room_is_untouched());
      }
    }
  }
}

TEST_CASE_TEMPLATE("gemm: beta = 0 overwrites garbage", T, float, double) {
  for (const Shape& s : kShapes) {
    const Padded<T> a(s.m, s.k, 1), b(s.k, s.n, 2);
    Padded<T> c(s.m, s.n, 3);
    c.fill(std::numeric_limits<T>::quiet_NaN());
    gemm<T>(view(c), T(1), view(a), Op::none, view(b), Op::none, T(0));
    check_close(c.dense(), expected(s, 1, a, Op::none, b, Op::none, 0, c), static_cast<double>(s.k) + 3);
  }
}

TEST_CASE_TEMPLATE("gemm_bias: has the bits of a product and an addition after it", T, float, double) {
  for (Shape s : kShapes) {
    for (const Index k : {s.k, Index{0}}) {
      for (const Op op_b : {Op::none, Op::transpose}) {
        const auto a = operand<T>(s.m, k, Op::none, 1), b = operand<T>(k, s.n, op_b, 2);
        const auto bias = random<T>(s.n, 4);
        Padded<T> c(s.m, s.n, 3), added = c;
        c.fill(std::numeric_limits<T>::quiet_NaN());
        gemm_bias<T>(view(c), view(a), Op::none, view(b), op_b, bias);
        gemm<T>(view(added), T(1), view(a), Op::none, view(b), op_b, T(0));
        for (Index i = 0; i < s.m; ++i) {
          for (Index j = 0; j < s.n; ++j) added.at(i, j) += bias[static_cast<std::size_t>(j)];
        }
        CHECK(same_bits(c.dense(), added.dense()));
        CHECK(c.room_is_untouched());
      }
    }
  }
}

TEST_CASE_TEMPLATE("gemm: an empty inner sum leaves beta c", T, float, double) {
  for (const Op op : {Op::none, Op::transpose}) {
    const auto a = operand<T>(9, 0, op, 1), b = operand<T>(0, 5, op, 2);
    Padded<T> c(9, 5, 3);
    c.fill(T(3));
    gemm<T>(view(c), T(1), view(a), op, view(b), op, T(2));
    CHECK(c.dense() == std::vector<T>(45, T(6)));
    c.fill(std::numeric_limits<T>::quiet_NaN());
    gemm<T>(view(c), T(1), view(a), op, view(b), op, T(0));
    CHECK(c.dense() == std::vector<T>(45, T(0)));
    // tight matrices, whose rows of no elements have stride 0
    std::vector<T> dense(45, std::numeric_limits<T>::quiet_NaN());
    const Mat<const T> none_a = op == Op::none ? Mat<const T>(nullptr, 9, 0) : Mat<const T>(nullptr, 0, 9);
    const Mat<const T> none_b = op == Op::none ? Mat<const T>(nullptr, 0, 5) : Mat<const T>(nullptr, 5, 0);
    gemm<T>(Mat<T>(dense.data(), 9, 5), T(1), none_a, op, none_b, op, T(0));
    CHECK(dense == std::vector<T>(45, T(0)));
  }
}

TEST_CASE_TEMPLATE("gemm: a matrix without rows or columns is left alone", T, float, double) {
  const Padded<T> a(0, 4, 1), b(4, 5, 2);
  Padded<T> no_rows(0, 5, 3);
  gemm<T>(view(no_rows), T(1), view(a), Op::none, view(b), Op::none, T(0));
  Padded<T> no_cols(5, 0, 3);
  gemm<T>(view(no_cols), T(1), view(b), Op::transpose, view(a), Op::transpose, T(0));
  CHECK(no_cols.room_is_untouched());
}

TEST_CASE_TEMPLATE("gemm: NaN in an operand shows in its row or column alone", T, float, double) {
  Padded<T> a(40, 30, 1);
  const Padded<T> b(30, 50, 2);
  a.at(7, 3) = std::numeric_limits<T>::quiet_NaN();
  Padded<T> c(40, 50, 3);
  gemm<T>(view(c), T(1), view(a), Op::none, view(b), Op::none, T(0));
  bool right = true;
  for (Index i = 0; i < c.rows; ++i) {
    for (Index j = 0; j < c.cols; ++j) right = right && std::isnan(c(i, j)) == (i == 7);
  }
  CHECK(right);
}

TEST_CASE_TEMPLATE("gemm: same bits on any number of threads", T, float, double) {
  for (const Shape& s : {Shape{768, 130, 128}, Shape{130, 900, 64}, Shape{128, 128, 768}}) {
    const Padded<T> a(s.m, s.k, 1), b(s.k, s.n, 2);
    check_threads([&] {
      Padded<T> c(s.m, s.n, 3);
      gemm<T>(view(c), T(1), view(a), Op::none, view(b), Op::none, T(1));
      return c.dense();
    });
  }
}

TEST_CASE_TEMPLATE("gemm_serial: may be called from many threads at once", T, float, double) {
  const ThreadScope scope(4);
  const Padded<T> a(60, 70, 1), b(70, 80, 2);
  std::vector<Padded<T>> c(12, Padded<T>(60, 80, 3));
  parallel_tasks(12, [&](Index task, int) {
    gemm_serial<T>(view(c[task]), T(1), view(a), Op::none, view(b), Op::none, T(0));
  });
  check_close(c[0].dense(), expected(Shape{60, 80, 70}, 1, a, Op::none, b, Op::none, 0, c[0]), 73);
  for (const auto& other : c) CHECK(same_bits(other.dense(), c[0].dense()));
}

TEST_CASE("blas_core: names the processor that OpenBLAS chose") { CHECK_FALSE(blas_core().empty()); }

TEST_CASE("gemm: a size that OpenBLAS cannot count is an error, not a smaller product") {
  float one = 1, y = 0;
  const Index beyond = (Index{1} << 32) + 1;
  const Mat<const float> a(&one, 1, 1, beyond), b(&one, 1, 1);
  CHECK_THROWS_AS(gemm<float>(Mat<float>(&y, 1, 1), 1, a, Op::none, b, Op::none, 0), Error);
  CHECK_THROWS_AS(gemm_serial<float>(Mat<float>(&y, 1, 1), 1, b, Op::none, a, Op::none, 0), Error);
  CHECK(y == 0);
}
