#include "tilegrad/autograd/ops.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/tensors.h"
#include "tilegrad/autograd/gradcheck_cases.h"
#include "tilegrad/autograd/tape.h"

using namespace tilegrad;
using test::random;

namespace {

void check_equal(const Tensor& actual, std::initializer_list<double> expected) {
  REQUIRE(actual.size() == static_cast<Index>(expected.size()));
  Index i = 0;
  for (const double value : expected) CHECK(actual.at(i++) == doctest::Approx(value).epsilon(1e-12));
}

const Tensor kA = Tensor::from<double>({2, 2}, {1, 2, 3, 4});
const Tensor kB = Tensor::from<double>({2, 2}, {5, -6, 7, 8});

}  // namespace

TEST_CASE("ops: every gradient matches finite differences") {
  for (const GradcheckCase& c : gradcheck_cases()) {
    const GradcheckResult result = gradcheck(c.function, c.inputs);
    CAPTURE(c.op);
    CAPTURE(c.shapes);
    CAPTURE(result.worst);
    CHECK(result.passed);
  }
}

TEST_CASE("add, sub, mul, scale: values") {
  check_equal(add(kA, kB).value(), {6, -4, 10, 12});
  check_equal(sub(kA, kB).value(), {-4, 8, -4, -4});
  check_equal(mul(kA, kB).value(), {5, -12, 21, 32});
  check_equal(scale(kA, -2).value(), {-2, -4, -6, -8});
}

TEST_CASE("matmul, linear: values") {
  check_equal(matmul(kA, kB).value(), {19, 10, 43, 14});
  check_equal(matmul(kA, kB, true).value(), {-7, 23, -9, 53});
  check_equal(linear(kA, kB).value(), {-7, 23, -9, 53});
  check_equal(linear(kA, kB, Tensor::from<double>({2}, {100, 200})).value(), {93, 223, 91, 253});
}

TEST_CASE("dropout: keeps about 1 − p, scales what it keeps, and repeats its mask for a key") {
  const Tensor ones = Tensor::full({10000}, Dtype::f64, 1.0);
  const Tensor y = dropout(ones, 0.25, RandomKey{1}).value(),
               again = dropout(ones, 0.25, RandomKey{1}).value();
  const Tensor other = dropout(ones, 0.25, RandomKey{2}).value();
  Index kept = 0, differ = 0;
  for (Index i = 0; i < y.size(); ++i) {
    CHECK((y.at(i) == 0 || y.at(i) == doctest::Approx(1 / 0.75).epsilon(1e-12)));
    CHECK(y.at(i) == again.at(i));
    kept += y.at(i) != 0;
    differ += y.at(i) != other.at(i);
  }
  CHECK(std::abs(static_cast<double>(kept) - 7500) < 5 * std::sqrt(10000 * 0.25 * 0.75));
  CHECK(differ > 1000);
}

TEST_CASE("rope: the product of two rotated vectors depends on their distance alone") {
  const Tensor q = random({1, 1, 1, 6}, 1), k = random({1, 1, 1, 6}, 2);
  const auto score = [&](Index i, Index j) { return sum(mul(rope(q, i), rope(k, j))).value().item(); };
  CHECK(score(5, 2) == doctest::Approx(score(13, 10)).epsilon(1e-12));
  CHECK(score(5, 2) != doctest::Approx(score(5, 3)).epsilon(1e-6));
}

TEST_CASE("slice, concat, swap_axes: values") {
  const Tensor x = Tensor::from<double>({2, 3}, {1, 2, 3, 4, 5, 6});
  check_equal(slice(x, 1, 1, 3).value(), {2, 3, 5, 6});
  check_equal(slice(x, 0, 1, 2).value(), {4, 5, 6});
  check_equal(concat(std::vector<Var>{x, slice(x, 1, 0, 1)}, 1).value(), {1, 2, 3, 1, 4, 5, 6, 4});
  check_equal(swap_axes(reshape(x, {1, 2, 3, 1})).value(), {1, 4, 2, 5, 3, 6});
}

TEST_CASE("cross_entropy: equals the composition with softmax, ignores what does not count") {
  const Tensor logits = random({2, 3, 5}, 1);
  const Tensor targets = Tensor::from<std::int32_t>({2, 3}, {4, kIgnored, 0, 2, 2, kIgnored});
  const Tensor p = softmax(logits).value();
  double expected = 0;
  for (Index i = 0; i < 6; ++i) {
    const auto target = static_cast<Index>(targets.at(i));
    if (target >= 0) expected -= std::log(p.at(i * 5 + target)) / 4;
  }
  CHECK(cross_entropy(logits, targets).value().item() == doctest::Approx(expected).epsilon(1e-12));
}

TEST_CASE("argmax: takes the first of equals, and NaN as largest") {
  const double nan = std::nan("");
  const Tensor y = argmax(Tensor::from<double>({3, 3}, {1, 5, 5, 9, nan, 10, -1, -2, -3}));
  check_equal(y, {1, 1, 0});
}

TEST_CASE("ops: a wrong shape or dtype is an error that names the op and both values") {
  const Var a = random({2, 3}, 1), b = random({4, 3}, 2), c = random({3}, 3);
  const Var narrow = Tensor::zeros({2, 3}, Dtype::f32);
  const Tensor ids = Tensor::from<std::int32_t>({2}, {0, 7});
  CHECK_THROWS_WITH_AS(add(a, b), "add: shapes differ: (2, 3) and (4, 3)", Error);
  CHECK_THROWS_WITH_AS(mul(a, narrow), "mul: dtypes differ: f64 and f32", Error);
  CHECK_THROWS_WITH_AS(add_bias(a, random({2}, 4)), "add_bias: bias is (2), the last axis of x is 3", Error);
  CHECK_THROWS_WITH_AS(matmul(a, b), "matmul: inner sizes differ: a is (2, 3), b is (4, 3)", Error);
  CHECK_THROWS_WITH_AS(linear(a, c), "linear: weight is (3), not (out, in)", Error);
  CHECK_THROWS_WITH_AS(linear(a, random({5, 4}, 5)),
                       "linear: inner sizes differ: x is (2, 3), weight is (5, 4)", Error);
  CHECK_THROWS_WITH_AS(dropout(a, 1.0, RandomKey{}), "dropout: p is 1, not in [0, 1)", Error);
  CHECK_THROWS_WITH_AS(embedding(b, ids), "embedding: id 7 is not in [0, 4)", Error);
  CHECK_THROWS_WITH_AS(reshape(a, {5}), "reshape: (2, 3) has 6 elements, (5) has 5", Error);
  CHECK_THROWS_WITH_AS(slice(a, 1, 2, 4), "slice: [2, 4) of axis 1 of (2, 3)", Error);
  CHECK_THROWS_WITH_AS(concat(std::vector<Var>{a, b}, 1),
                       "concat: (2, 3) and (4, 3) differ in an axis other than 1", Error);
  CHECK_THROWS_WITH_AS(rope(random({1, 2, 1, 3}, 6)), "rope: head size 3 is odd", Error);
  CHECK_THROWS_WITH_AS(cross_entropy(a, ids), "cross_entropy: target 7 is not in [0, 3)", Error);
  CHECK_THROWS_WITH_AS(cross_entropy(b, ids), "cross_entropy: targets are (2), logits (4, 3)", Error);
  CHECK_THROWS_WITH_AS(cross_entropy(a, Tensor::from<std::int32_t>({2}, {kIgnored, kIgnored})),
                       "cross_entropy: no position counts among (2)", Error);
  CHECK_THROWS_WITH_AS(gelu(Tensor::zeros({2}, Dtype::bf16)),
                       "gelu: bf16 does not compute; cast to f32 or f64 first", Error);
}
