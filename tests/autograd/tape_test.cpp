#include "tilegrad/autograd/tape.h"

#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "tests/tensors.h"
#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"

using namespace tilegrad;
using test::scalar;

namespace {

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

// The live bytes whenever an op begins.
struct LiveBytes : OpListener {
  std::vector<Index> at_begin;

  void begin(std::string_view) override { at_begin.push_back(memory::usage().live); }
  void end() override {}
  void recorded(std::string_view, Index) override {}
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
    LiveBytes live;
    const ListenScope listen(live);
    tape.backward(loss);
    REQUIRE(live.at_begin.size() == 21);
    // From the second gelu on every step frees what one gelu saved.
    for (std::size_t i = 2; i + 1 < live.at_begin.size(); ++i) CHECK(live.at_begin[i + 1] < live.at_begin[i]);
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
