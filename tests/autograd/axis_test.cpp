#include <doctest/doctest.h>

#include <cmath>

#include "tests/message_of.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"

using namespace tilegrad;
using test::message_of;

namespace {

const Tensor kX = Tensor::from<double>({2, 3}, {1, 7, 3, 9, 5, 6});

void check_equal(const Var& actual, const Shape& shape, std::initializer_list<double> expected) {
  REQUIRE(actual.shape() == shape);
  Index i = 0;
  for (const double value : expected) CHECK(actual.value().at(i++) == doctest::Approx(value).epsilon(1e-15));
}

}  // namespace

TEST_CASE("sum, mean, max, argmax: along each axis") {
  check_equal(sum(kX, 0), {3}, {10, 12, 9});
  check_equal(sum(kX, -1), {2}, {11, 20});
  check_equal(mean(kX, 0), {3}, {5, 6, 4.5});
  check_equal(max(kX, 0), {3}, {9, 7, 6});
  check_equal(max(kX, 1), {2}, {7, 9});
  check_equal(argmax(kX, 0), {3}, {1, 0, 1});
  check_equal(argmax(kX), {2}, {1, 0});
}

TEST_CASE(
    "sum along an axis: agrees with plain loops for more columns than one block, and adds to a gradient") {
  const Tensor x = Tensor::normal({3, 5, 130}, Dtype::f64, RandomKey{1});
  const Tensor y = sum(x, 1).value();
  for (Index o = 0; o < 3; ++o) {
    for (Index j = 0; j < 130; ++j) {
      double total = 0;
      for (Index i = 0; i < 5; ++i) total += x.at({o, i, j});
      CHECK(y.at({o, j}) == doctest::Approx(total).epsilon(1e-14));
    }
  }
  const Var leaf = Var::leaf(x);
  Tape tape;
  tape.backward(add(sum(sum(sum(leaf, 1), 0), 0), sum(scale(leaf, 2))));
  for (Index i = 0; i < x.size(); ++i) REQUIRE(leaf.grad().at(i) == 3);
}

TEST_CASE("sum along an axis: a million floats lose no digits") {
  const Tensor x = Tensor::full({1 << 20, 2}, Dtype::f32, 0.1);
  const double expected = (1 << 20) * static_cast<double>(0.1F);
  CHECK(sum(x, 0).value().at(1) == doctest::Approx(expected).epsilon(6e-8));
}

TEST_CASE("max: NaN counts as largest, and empty axes are errors, but not empty results") {
  CHECK(std::isnan(max(Tensor::from<double>({3}, {5, std::nan(""), 9}), 0).value().item()));
  CHECK(message_of([] {
          max(Tensor::zeros({2, 0}, Dtype::f64), 1);
        }) == "max: axis 1 of (2, 0) has 0 entries");
  CHECK(message_of([] { mean(Tensor::zeros({2, 0}, Dtype::f64), 1); }) == "mean: axis 1 of (2, 0) is empty");
  CHECK(max(Tensor::zeros({2, 0}, Dtype::f64), 0).shape() == Shape{0});
  check_equal(sum(Tensor::zeros({2, 0}, Dtype::f64), 1), {2}, {0, 0});
}

TEST_CASE("broadcast: repeats a row or a column, where a new axis is named") {
  const Tensor x = Tensor::from<double>({2}, {3, 4});
  check_equal(broadcast(x, 0, 3), {3, 2}, {3, 4, 3, 4, 3, 4});
  check_equal(broadcast(x, 1, 3), {2, 3}, {3, 3, 3, 4, 4, 4});
  check_equal(broadcast(x, -1, 2), {2, 2}, {3, 3, 4, 4});
  check_equal(broadcast(Tensor::full({}, Dtype::f64, 5), 0, 2), {2}, {5, 5});
  CHECK(message_of([&] { broadcast(x, 2, 3); }) == "broadcast: (2) has no place for a new axis 2");
}

TEST_CASE("gather, select, stack, transpose: values") {
  check_equal(gather(kX, Tensor::from<std::int32_t>({2}, {2, 0})), {2}, {3, 9});
  check_equal(gather(kX, Tensor::from<std::int32_t>({3}, {1, 0, 1}), 0), {3}, {9, 7, 6});
  check_equal(select(kX, 0, -1), {3}, {9, 5, 6});
  check_equal(select(kX, 1, 0), {2}, {1, 9});
  check_equal(stack(std::vector<Var>{kX, kX}, 1), {2, 2, 3}, {1, 7, 3, 1, 7, 3, 9, 5, 6, 9, 5, 6});
  check_equal(transpose(kX), {3, 2}, {1, 9, 7, 5, 3, 6});
}

TEST_CASE("gather, select, stack, transpose: a wrong argument is an error that says so") {
  const Tensor x = kX, row = Tensor::zeros({3}, Dtype::f64);
  CHECK(message_of([&] {
          gather(x, Tensor::from<std::int32_t>({3}, {0, 0, 0}));
        }) == "gather: ids are (3), not of the shape of x, (2, 3), without axis -1");
  CHECK(message_of([&] {
          gather(x, Tensor::from<std::int32_t>({2}, {0, 3}));
        }) == "gather: id 3 is not in [0, 3)");
  CHECK(message_of([&] { select(x, 1, 3); }) == "select: entry 3 of axis 1 of (2, 3) does not exist");
  CHECK(message_of([&] { stack(std::vector<Var>{x, row}, 0); }) == "stack: shapes differ: (2, 3) and (3)");
  CHECK(message_of([&] { stack(std::vector<Var>{}, 0); }) == "stack: there is nothing to stack");
  CHECK(message_of([&] { transpose(row); }) == "transpose: x is (3), it needs two axes");
}
