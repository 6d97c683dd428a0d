#include "tilegrad/autograd/tape.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <memory>

#include "tilegrad/autograd/checkpoint.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/kernels/parallel.h"

using namespace tilegrad;

namespace {

Tensor scalar(double value) { return Tensor::full({}, Dtype::f64, value); }

// An op with two outputs: the elements of a pair.
struct SplitRule {
  static constexpr std::string_view name = "split";

  void backward(std::span<const Tensor> dys, InputGrads& dx) {
    const auto out = dx.grad<double>(0).to;
    out[0] = dys[0].defined() ? dys[0].item() : 0;
    out[1] = dys[1].defined() ? dys[1].item() : 0;
  }
};

std::array<Var, 2> split(const Var& x) {
  const std::array<Tensor, 2> ys = {scalar(x.value().at(0)), scalar(x.value().at(1))};
  return record<2>(ys, std::span<const Var>(&x, 1), [] { return SplitRule{}; });
}

struct FailingRule {
  static constexpr std::string_view name = "failing";

  void backward(const Tensor&, InputGrads& dx) {
    (void)dx.grad<double>(0);  // never written
    fail("failing: on purpose");
  }
};

}  // namespace

TEST_CASE("tape: a value used twice receives both gradients") {
  const Var x = Var::leaf(scalar(3));
  Tape tape;
  const Var b = add(x, x);   // 2x
  const Var c = mul(b, b);   // 4x²
  const Var d = mul(c, x);   // 4x³
  tape.backward(add(d, b));  // 4x³ + 2x
  CHECK(x.grad().item() == 12 * 9 + 2);
}

TEST_CASE("tape: an op whose inputs are one value adds all its gradients") {
  const Var x = Var::leaf(Tensor::normal({1, 5, 2, 4}, Dtype::f64, RandomKey{1}));
  const auto grad_of = [&](bool copies) {
    Tape tape;
    const Var y = copies ? attention(scale(x, 1), scale(x, 1), scale(x, 1), AttentionKernel::flash)
                         : attention(x, x, x, AttentionKernel::flash);
    tape.backward(y, Tensor::normal(y.shape(), Dtype::f64, RandomKey{2}));
    Tensor grad = x.grad().clone();
    x.cell()->grad = Tensor();
    return grad;
  };
  const Tensor once = grad_of(false), apart = grad_of(true);
  for (Index i = 0; i < once.size(); ++i) CHECK(once.at(i) == doctest::Approx(apart.at(i)).epsilon(1e-12));
}

TEST_CASE("tape: gradients handed on by add are not corrupted by later additions") {
  const Var a = Var::leaf(scalar(2)), b = Var::leaf(scalar(5));
  Tape tape;
  const Var y = add(a, b);           // da and db share dy ...
  tape.backward(add(y, mul(a, a)));  // ... and then only da grows
  CHECK(a.grad().item() == 1 + 4);
  CHECK(b.grad().item() == 1);
}

TEST_CASE("tape: gradients of leaves add up over tapes until they are forgotten") {
  Parameter p(scalar(2));
  for (int pass = 1; pass <= 3; ++pass) {
    Tape tape;
    tape.backward(mul(p, p));
    CHECK(p.grad().item() == 4.0 * pass);
  }
  p.zero_grad();
  CHECK_FALSE(p.grad().defined());
}

TEST_CASE("tape: a leaf that the root does not depend on gets no gradient") {
  const Var x = Var::leaf(scalar(1)), unused = Var::leaf(scalar(1));
  Tape tape;
  const Var side = mul(unused, unused);
  tape.backward(mul(x, x));
  CHECK_FALSE(unused.grad().defined());
  CHECK(tape.size() == 0);
}

TEST_CASE("tape: records nothing without a tracked input, under a pause, or after it was used") {
  const Var x = Var::leaf(scalar(1)), constant = scalar(2);
  Tape tape;
  CHECK_FALSE(mul(constant, constant).tracked());
  {
    const Tape::Pause pause;
    CHECK_FALSE(mul(x, x).tracked());
    CHECK(pause.skipped_any());
  }
  CHECK(tape.size() == 0);
  tape.backward(mul(x, x));
  CHECK_FALSE(mul(x, x).tracked());
}

TEST_CASE("tape: saves nothing when nothing is recorded") {
  const Var x = Var::leaf(Tensor::zeros({100, 100}, Dtype::f64));
  const Index before = memory::usage().live;
  { const Var y = gelu(gelu(gelu(x))); }
  CHECK(memory::usage().live == before);
}

TEST_CASE("tape: a chain of a hundred thousand ops is walked and destroyed without recursion") {
  const Var x = Var::leaf(scalar(1));
  const auto chain = [&] {
    Var y = x;
    for (int i = 0; i < 100000; ++i) y = scale(y, 1.0);
    return y;
  };
  {
    Tape dropped;
    chain();
  }
  Tape tape;
  tape.backward(chain());
  CHECK(x.grad().item() == 1);
}

TEST_CASE("tape: memory falls while backward walks, and returns to what it was") {
  const Var x = Var::leaf(Tensor::normal({64, 64}, Dtype::f64, RandomKey{3}));
  const Index before = memory::usage().live;
  {
    Tape tape;
    Var y = x;
    for (int i = 0; i < 20; ++i) y = gelu(y);
    const Var loss = sum(y);
    y = Var();
    std::vector<Index> live;
    tape.observe([&](const Node&, std::span<const Tensor>) { live.push_back(memory::usage().live); });
    tape.backward(loss);
    REQUIRE(live.size() == 21);
    // From the second gelu on every step frees what one gelu saved.
    for (std::size_t i = 2; i + 1 < live.size(); ++i) CHECK(live[i + 1] < live[i]);
  }
  x.cell()->grad = Tensor();
  CHECK(memory::usage().live == before);
}

TEST_CASE("tape: several outputs of one op are differentiated together") {
  const Var x = Var::leaf(Tensor::from<double>({2}, {3.0, 4.0}));
  {
    Tape tape;
    const auto y = split(x);
    tape.backward(mul(y[0], y[1]));
    CHECK(x.grad().at(0) == 4);
    CHECK(x.grad().at(1) == 3);
  }
  x.cell()->grad = Tensor();
  Tape tape;
  tape.backward(scale(split(x)[1], 2));
  CHECK(x.grad().at(0) == 0);
  CHECK(x.grad().at(1) == 2);
}

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

TEST_CASE("tape: gradients of leaves share memory with nothing, neither each other nor the cotangent") {
  const Var a = Var::leaf(scalar(2)), b = Var::leaf(scalar(5));
  Tensor cotangent = scalar(1);
  for (const double value : {1.0, 10.0}) {
    cotangent.mut<double>()[0] = value;
    Tape tape;
    tape.backward(add(a, b), cotangent);
  }
  CHECK(a.grad().item() == 11);
  Tensor(a.grad()).mut<double>()[0] = 0;  // as clipping by hand would
  CHECK(b.grad().item() == 11);
}

TEST_CASE("tape: an error in backward leaves no gradient that nobody wrote") {
  const Var x = Var::leaf(scalar(2));
  Tape tape;
  const Var y = record(scalar(3), {x}, [] { return FailingRule{}; });
  CHECK_THROWS_WITH_AS(tape.backward(y), "failing: on purpose", Error);
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("tape: tapes may be destroyed in any order, and before a pause of theirs") {
  const Var x = Var::leaf(scalar(2));
  auto outer = std::make_unique<Tape>(), inner = std::make_unique<Tape>();
  auto pause = std::make_unique<Tape::Pause>();
  outer.reset();
  CHECK(Tape::recording() == nullptr);
  inner.reset();
  pause.reset();
  CHECK(Tape::recording() == nullptr);
  Tape tape;
  tape.backward(mul(x, x));
  CHECK(x.grad().item() == 4);
}

TEST_CASE("tape: pauses may end in any order") {
  Tape tape;
  auto first = std::make_unique<Tape::Pause>(), second = std::make_unique<Tape::Pause>();
  first.reset();
  CHECK(Tape::recording() == nullptr);
  second.reset();
  CHECK(Tape::recording() == &tape);
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
