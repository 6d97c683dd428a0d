#include "tilegrad/autograd/print.h"

#include <doctest/doctest.h>

#include <numeric>
#include <sstream>
#include <vector>

#include "tests/message_of.h"

using namespace tilegrad;

TEST_CASE("print: shape, dtype and aligned elements") {
  CHECK(to_string(Tensor::from<float>({2, 3}, {1, 2.5, 3, -4, 1e9, 1 / 3.F})) ==
        "(2, 3) f32\n"
        "[[     1,    2.5,      3],\n"
        " [    -4,  1e+09, 0.3333]]");
  CHECK(to_string(Tensor::from<std::int32_t>({2, 1, 2}, {1, 2, 3, 4})) ==
        "(2, 1, 2) i32\n"
        "[[[1, 2]],\n"
        " [[3, 4]]]");
  CHECK(to_string(Tensor::full({}, Dtype::f64, 2.5)) == "() f64\n2.5");
  CHECK(to_string(Tensor::zeros({0, 3}, Dtype::f32)) == "(0, 3) f32\n[]");
  CHECK(to_string(Tensor()) == "undefined");
}

TEST_CASE("print: the corners of a large tensor alone") {
  std::vector<double> values(70);
  std::iota(values.begin(), values.end(), 0.0);
  const Tensor large = Tensor::from<double>({10, 7}, std::span<const double>(values));
  std::ostringstream out;
  out << large << "\n" << Var(large);
  const std::string expected =
      "(10, 7) f64\n"
      "[[ 0,  1,  2, ...,  4,  5,  6],\n"
      " [ 7,  8,  9, ..., 11, 12, 13],\n"
      " [14, 15, 16, ..., 18, 19, 20],\n"
      " ...,\n"
      " [49, 50, 51, ..., 53, 54, 55],\n"
      " [56, 57, 58, ..., 60, 61, 62],\n"
      " [63, 64, 65, ..., 67, 68, 69]]";
  CHECK(out.str() == expected + "\n" + expected);
}

TEST_CASE("tensor: an element is found by its position, from either end") {
  const Tensor x = Tensor::from<float>({2, 3}, {1, 2, 3, 4, 5, 6});
  CHECK(x.at({1, 0}) == 4);
  CHECK(x.at({-1, -2}) == 5);
  CHECK(Tensor::full({}, Dtype::f64, 7).at({}) == 7);
  CHECK(test::message_of([&] { x.at({1, 3}); }) == "tensor: (1, 3) is not a position in (2, 3)");
  CHECK(test::message_of([&] { x.at({-3, 0}); }) == "tensor: (-3, 0) is not a position in (2, 3)");
  CHECK(test::message_of([&] { x.at({1, 1, 1}); }) == "tensor: (1, 1, 1) is not a position in (2, 3)");
}
