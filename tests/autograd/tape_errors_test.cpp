// What a tape does when something goes wrong: misuse, errors in the middle of backward, anomalies.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/limits.h"
#include "tests/tensors.h"
#include "tilegrad/autograd/checkpoint.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"

using namespace tilegrad;
using test::scalar;

namespace {

struct FailingRule {
  static constexpr std::string_view name = "failing";

  void backward(const Tensor&, InputGrads& dx) {
    (void)dx.grad<double>(0);  // never written
    fail("failing: on purpose");
  }
};

struct HandsOnAndFailsRule {
  static constexpr std::string_view name = "hands on and fails";

  void backward(const Tensor& dy, InputGrads& dx) {
    dx.add(0, dy);
    dx.add(1, dy);
    fail("hands on and fails: on purpose");
  }
};

// y = x, and backward fails when it comes to it.
Var failing(const Var& x) {
  return record(x.value().clone(), {x}, [] { return FailingRule{}; });
}

}  // namespace

TEST_CASE("backward: misuse is an error that says what is wrong") {
  const Var x = Var::leaf(Tensor::normal({2}, Dtype::f64, RandomKey{4}));
  SUBCASE("twice") {
    Tape tape;
    const Var y = sum(x);
    tape.backward(y);
    CHECK_THROWS_WITH_AS(tape.backward(y), "backward: this tape has already been used", Error);
  }
  SUBCASE("a root that is not a scalar") {
    Tape tape;
    CHECK_THROWS_WITH_AS(tape.backward(scale(x, 2)),
                         "backward: the root is (2), not a scalar; pass a cotangent of that shape", Error);
  }
  SUBCASE("a cotangent of another shape") {
    Tape tape;
    CHECK_THROWS_WITH_AS(tape.backward(scale(x, 2), Tensor::zeros({3}, Dtype::f64)),
                         "backward: the cotangent is f64 (3), the root f64 (2)", Error);
  }
  SUBCASE("a root that was not recorded here") {
    Tape tape;
    CHECK_THROWS_WITH_AS(tape.backward(sum(x.detach())), "backward: the root was not recorded on this tape",
                         Error);
    CHECK_THROWS_AS(tape.backward(x, x.value()), Error);
  }
  SUBCASE("a value of another tape") {
    Var foreign;
    {
      Tape other;
      foreign = scale(x, 2);
    }
    Tape tape;
    CHECK_THROWS_WITH_AS(mul(x, foreign), doctest::Contains("mul: input 1 (2) was recorded on another tape"),
                         Error);
  }
  SUBCASE("a saved value that was modified in place") {
    Tape tape;
    Tensor value = x.value();
    const Var y = sum(mul(x, x));
    value.mut<double>()[0] = 7;
    CHECK_THROWS_WITH_AS(tape.backward(y),
                         doctest::Contains("mul: saved `b` (2) was modified after the forward pass"), Error);
  }
  SUBCASE("an op without a backward on a gradient path") {
    Tape tape;
    CHECK_THROWS_WITH_AS(argmax(x), doctest::Contains("argmax: has no backward"), Error);
    CHECK(argmax(x.detach()).size() == 1);
  }
}

TEST_CASE("tape: values that were never given are an error") {
  const Var x = Var::leaf(scalar(2));
  CHECK_THROWS_WITH_AS(x.grad().clone(), "tensor: used before it was given a value", Error);
  CHECK_THROWS_WITH_AS(Parameter().zero_grad(), "parameter: used before it was given a value", Error);
  Tape tape;
  CHECK_THROWS_WITH_AS(checkpoint([](const Var& in) { return mul(in, in); }, Var()),
                       "tensor: used before it was given a value", Error);
  CHECK_THROWS_WITH_AS(tape.backward(mul(x, x), Tensor()), "backward: the cotangent has no value", Error);
}

TEST_CASE("tape: an error in backward leaves no gradient that nobody wrote") {
  const Var x = Var::leaf(scalar(2));
  Tape tape;
  const Var y = record(scalar(3), {x}, [] { return FailingRule{}; });
  CHECK_THROWS_WITH_AS(tape.backward(y), "failing: on purpose", Error);
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("tape: after an error in backward gradients share memory with nothing") {
  const Var a = Var::leaf(scalar(2)), b = Var::leaf(scalar(5));
  const Tensor cotangent = scalar(1);
  SUBCASE("with each other, if another op failed") {
    Tape tape;
    const Var last = failing(scale(a, 2));  // in backward, which begins with the sums
    const Var y = add(last, add(a, b));
    CHECK_THROWS_AS(tape.backward(y, cotangent), Error);
  }
  SUBCASE("with the cotangent, if the op that handed it on failed") {
    Tape tape;
    const Var y = record(scalar(7), {a, b}, [] { return HandsOnAndFailsRule{}; });
    CHECK_THROWS_AS(tape.backward(y, cotangent), Error);
  }
  REQUIRE(a.grad().defined());
  CHECK(a.grad().item() == 1);
  CHECK_FALSE(a.grad().shares_storage_with(b.grad()));
  CHECK_FALSE(a.grad().shares_storage_with(cotangent));
  CHECK_FALSE(b.grad().shares_storage_with(cotangent));
}

TEST_CASE("tape: an error in backward frees what the tape held, and no intermediate value keeps a gradient") {
  const Var x = Var::leaf(Tensor::normal({100}, Dtype::f64, RandomKey{1}));
  const Var other = Var::leaf(x.value());
  const Index before = memory::usage().live;
  Tape tape;
  const Var inner = failing(gelu(x));  // outlives the walk, as the values of a model do
  {
    const Var y = sum(add(inner, other));
    CHECK_THROWS_AS(tape.backward(y), Error);
  }
  CHECK(tape.size() == 0);
  CHECK_FALSE(inner.cell()->grad.defined());
  CHECK(other.grad().defined());
  const Index kept = other.grad().bytes() + inner.value().bytes();
  CHECK(memory::usage().live - before <= kept);
}

TEST_CASE("tape: wherever memory runs out in backward, a leaf has its whole gradient or none") {
  struct Leaves {
    Var q = Var::leaf(Tensor::normal({1, 5, 2, 4}, Dtype::f64, RandomKey{1}));
    Var k = Var::leaf(Tensor::normal({1, 5, 1, 4}, Dtype::f64, RandomKey{2}));
    Var v = Var::leaf(Tensor::normal({1, 5, 1, 4}, Dtype::f64, RandomKey{3}));
    Var bias = Var::leaf(Tensor::normal({1, 2, 5, 5}, Dtype::f64, RandomKey{4}));
    Var before = Var::leaf(Tensor::normal({1, 5, 2, 4}, Dtype::f64, RandomKey{5}));
    Var after = Var::leaf(Tensor::normal({1, 5, 2, 4}, Dtype::f64, RandomKey{6}));

    std::array<const Var*, 6> all() const { return {&q, &k, &v, &bias, &before, &after}; }
    // Gradients that are handed on, shared and computed.
    Var loss(AttentionKernel kernel) const {
      const Var out = attention(sub(q, before), k, v, kernel, {.causal = true}, {.bias = bias});
      return sum(add(checkpoint([](const Var& x) { return gelu(x); }, out), after));
    }
  };
  for (const AttentionKernel kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    const Leaves expected;
    {
      Tape tape;
      tape.backward(expected.loss(kernel));
    }
    int failures = 0;
    bool done = false;
    for (Index extra = 0; !done; extra += 64) {
      const Leaves leaves;
      Tape tape;
      const Var loss = leaves.loss(kernel);
      const Tensor one = Tensor::full({}, Dtype::f64, 1);
      try {
        const test::MemoryLimit limit(memory::usage().live + extra);
        tape.backward(loss, one);
        done = true;
      } catch (const memory::OutOfMemory&) {
        ++failures;
      }
      for (std::size_t i = 0; i < leaves.all().size(); ++i) {
        const Tensor &grad = leaves.all()[i]->grad(), &right = expected.all()[i]->grad();
        if (!grad.defined()) continue;
        bool equal = true;
        for (Index e = 0; e < grad.size(); ++e) equal = equal && grad.at(e) == right.at(e);
        CAPTURE(extra);
        CAPTURE(i);
        CHECK(equal);
        CHECK(grad.unique());
        CHECK_FALSE(grad.shares_storage_with(one));
      }
    }
    CHECK(failures > 10);
  }
}

TEST_CASE("detect_anomaly: names the first op that makes a NaN or Inf") {
  const double infinity = std::numeric_limits<double>::infinity();
  SUBCASE("in forward") {
    Tape tape(Tape::Options{.detect_anomaly = true});
    const Var x = Var::leaf(scalar(1e200));
    const Var fine = scale(x, 1);
    CHECK_THROWS_WITH_AS(mul(fine, fine), "mul: made the first NaN or Inf, in an output of shape ()", Error);
  }
  SUBCASE("in backward") {
    Tape tape(Tape::Options{.detect_anomaly = true});
    const Var x = Var::leaf(scalar(0));
    const Var y = scale(scale(x, 1e200), 1e200);
    CHECK_THROWS_WITH_AS(tape.backward(y), doctest::Contains("scale: backward made the first NaN or Inf"),
                         Error);
  }
  SUBCASE("not at all unless it is asked to") {
    Tape tape;
    const Var x = Var::leaf(scalar(infinity));
    CHECK_NOTHROW(tape.backward(scale(x, 2)));
  }
}

TEST_CASE("tape: the lse of a row that sees no key is no anomaly, NaN is") {
  const Tensor q = Tensor::normal({1, 2, 1, 4}, Dtype::f64, RandomKey{1});
  const Var x = Var::leaf(Tensor::normal({1, 1, 1, 4}, Dtype::f64, RandomKey{2}));
  const Tape tape({.detect_anomaly = true});
  for (const AttentionKernel kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    const AttentionResult y =
        attention_with_lse(q, x, x, kernel, {.causal = true});  // the first query sees none
    CHECK(std::isinf(y.lse.value().at(0)));
    const Tensor bad = Tensor::full({1, 1, 1, 4}, Dtype::f64, std::nan(""));
    CHECK_THROWS_AS(attention_with_lse(q, bad, bad, kernel), Error);
  }
}
