#include <doctest/doctest.h>

#include "tilegrad/autograd/checkpoint.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"

using namespace tilegrad;

namespace {

// Two products that share a recomputed norm, and one after a recomputed activation of both.
struct Cheap {
  Parameter gain{Tensor::uniform({8}, Dtype::f32, RandomKey{10})};
  Parameter left{Tensor::normal({5, 8}, Dtype::f32, RandomKey{11})};
  Parameter right{Tensor::normal({5, 8}, Dtype::f32, RandomKey{12})};
  Parameter down{Tensor::normal({3, 5}, Dtype::f32, RandomKey{13})};
  Parameter bias{Tensor::normal({3}, Dtype::f32, RandomKey{14})};
  int norms = 0, activations = 0;

  Var operator()(const Var& x, bool again) {
    const auto norm = [this](const Var& in) {
      ++norms;
      return rmsnorm(in, gain);
    };
    const auto activation = [this](std::span<const Var> in) {
      ++activations;
      return swiglu(in[0], in[1]);
    };
    const Var n = again ? recomputed(norm, x) : norm(x);
    const std::array<Var, 2> in = {linear(n, left), linear(n, right)};
    return linear(again ? recomputed(activation, in) : activation(in), down, bias);
  }
};

struct CheapResult {
  std::vector<Tensor> tensors;  // y and all gradients
  Index kept, highest;          // bytes after forward; at most during backward
};

CheapResult run_cheap(Cheap& layer, bool again) {
  const Var x = Var::leaf(Tensor::normal({60, 8}, Dtype::f32, RandomKey{15}));
  const Index before = memory::usage().live;
  Tape tape;
  const Var y = layer(scale(x, 2), again);  // scaled, so that what the norm takes belongs to the tape
  const Index kept = memory::usage().live - before;
  memory::reset_peak();
  tape.backward(sum(mul(y, y)));
  CheapResult result = {{y.value(), x.grad()}, kept, memory::usage().peak - before};
  for (Parameter* p : {&layer.gain, &layer.left, &layer.right, &layer.down, &layer.bias}) {
    result.tensors.push_back(p->grad());
    p->zero_grad();
  }
  return result;
}

}  // namespace

TEST_CASE("recomputed: keeps every bit and not its value, which is computed once for all who need it") {
  Cheap layer;
  const CheapResult plain = run_cheap(layer, false);
  CHECK(layer.norms == 1);
  CHECK(layer.activations == 1);
  const CheapResult again = run_cheap(layer, true);
  CHECK(layer.norms == 3);
  CHECK(layer.activations == 3);
  constexpr Index kNorm = 60 * 8 * 4, kActivation = 60 * 5 * 4;
  CHECK(plain.kept - again.kept == kNorm + kActivation);
  CHECK(again.highest < plain.highest);
  for (std::size_t i = 0; i < plain.tensors.size(); ++i) {
    const Tensor &a = plain.tensors[i], &b = again.tensors[i];
    REQUIRE(a.shape() == b.shape());
    for (Index j = 0; j < a.size(); ++j) REQUIRE(a.at(j) == b.at(j));
  }
}

TEST_CASE("recomputed: a value made of a recomputed one is computed from what that one is made of") {
  Parameter weight(Tensor::normal({5, 8}, Dtype::f64, RandomKey{16}));
  const Tensor start = Tensor::normal({6, 8}, Dtype::f64, RandomKey{17});
  const auto grad = [&](bool again) {
    const auto act = [](const Var& in) { return gelu(in); };
    const Var x = Var::leaf(start);
    Tape tape;
    const Var y = again ? recomputed(act, recomputed(act, x)) : act(act(x));
    tape.backward(sum(linear(y, weight)));
    const Tensor dweight = weight.grad();
    weight.zero_grad();
    return std::array{x.grad(), dweight};
  };
  const auto expected = grad(false), actual = grad(true);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    for (Index j = 0; j < expected[i].size(); ++j) CHECK(expected[i].at(j) == actual[i].at(j));
  }
}

TEST_CASE("recomputed: an input modified before backward is an error, and without a tape nothing is kept") {
  Tensor value = Tensor::normal({2, 3}, Dtype::f64, RandomKey{18});
  Parameter weight(Tensor::normal({4, 3}, Dtype::f64, RandomKey{19}));
  const auto fn = [](const Var& in) { return relu(in); };
  CHECK(recomputed(fn, Var(value)).recomputation() == nullptr);
  Tape tape;
  const Var y = sum(linear(recomputed(fn, Var::leaf(value)), weight));
  value.mut<double>()[0] = 1;
  CHECK_THROWS_WITH_AS(tape.backward(y), doctest::Contains("linear: saved `x` (2, 3) was modified"), Error);
}

TEST_CASE("recomputed: a chain of a hundred thousand values needs no deep stack") {
  const Var x = Var::leaf(Tensor::full({1}, Dtype::f64, 1.0));
  {
    Tape tape;
    Var y = x;
    for (int i = 0; i < 100'000; ++i) y = recomputed([](const Var& in) { return scale(in, 1.0); }, y);
    tape.backward(mul(y, y), Tensor::full({1}, Dtype::f64, 1.0));
    CHECK(x.grad().item() == 2);
  }
  Tape unused;
  Var y = x;
  for (int i = 0; i < 100'000; ++i) y = recomputed([](const Var& in) { return scale(in, 1.0); }, y);
}
