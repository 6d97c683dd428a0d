#include "tilegrad/autograd/checkpoint.h"

#include <doctest/doctest.h>

#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"

using namespace tilegrad;

namespace {

// A stack of layers with parameters, dropout and both attention kernels in reach.
struct Layer {
  Parameter weight{Tensor::normal({8, 8}, Dtype::f32, RandomKey{1}, 0.3)};
  RandomKey key{7};

  Var operator()(const Var& x) const {
    const Var h = gelu(dropout(linear(x, weight), 0.3, key));
    const Var heads = reshape(h, {1, x.dim(0), 2, 4});
    return add(x,
               reshape(attention(heads, heads, heads, AttentionKernel::flash, {.causal = true}), x.shape()));
  }
};

struct Run {
  double loss;
  std::vector<Tensor> grads;
};

template <class Apply>
Run run(std::vector<Layer>& layers, Apply&& apply) {
  const Var x = Var::leaf(Tensor::normal({6, 8}, Dtype::f32, RandomKey{2}));
  Tape tape;
  const Var y = apply(x);
  const Var loss = mean(mul(y, y));
  tape.backward(loss);
  Run result{.loss = loss.value().item(), .grads = {x.grad()}};
  for (Layer& layer : layers) {
    result.grads.push_back(layer.weight.grad());
    layer.weight.zero_grad();
  }
  return result;
}

void check_same_bits(const Run& a, const Run& b) {
  CHECK(a.loss == b.loss);
  REQUIRE(a.grads.size() == b.grads.size());
  for (std::size_t i = 0; i < a.grads.size(); ++i) {
    for (Index j = 0; j < a.grads[i].size(); ++j) REQUIRE(a.grads[i].at(j) == b.grads[i].at(j));
  }
}

std::vector<Layer> make_layers(int n) {
  std::vector<Layer> layers(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) layers[i].key = RandomKey{7}.fold(static_cast<std::uint64_t>(i));
  return layers;
}

Var plain(const std::vector<Layer>& layers, Var x) {
  for (const Layer& layer : layers) x = layer(x);
  return x;
}

}  // namespace

TEST_CASE("checkpoint: loss and gradients equal those of the plain run to the last bit, dropout included") {
  auto layers = make_layers(4);
  const Run expected = run(layers, [&](const Var& x) { return plain(layers, x); });
  SUBCASE("one checkpoint a layer") {
    check_same_bits(expected, run(layers, [&](Var x) {
                      for (const Layer& layer : layers) {
                        x = checkpoint([&layer](const Var& in) { return layer(in); }, x);
                      }
                      return x;
                    }));
  }
  SUBCASE("one checkpoint for all") {
    check_same_bits(expected, run(layers, [&](const Var& x) {
                      return checkpoint([&](const Var& in) { return plain(layers, in); }, x);
                    }));
  }
  SUBCASE("checkpoints inside a checkpoint") {
    check_same_bits(expected, run(layers, [&](const Var& x) {
                      return checkpoint(
                          [&](const Var& in) {
                            Var y = in;
                            for (const Layer& layer : layers) {
                              y = checkpoint([&layer](const Var& z) { return layer(z); }, y);
                            }
                            return y;
                          },
                          x);
                    }));
  }
}

TEST_CASE("checkpoint: runs its function once forward and once backward") {
  int calls = 0;
  const Var x = Var::leaf(Tensor::normal({4}, Dtype::f64, RandomKey{3}));
  const auto fn = [&](const Var& in) {
    ++calls;
    return gelu(in);
  };
  {
    Tape tape;
    const Var y = sum(checkpoint(fn, x));
    CHECK(calls == 1);
    tape.backward(y);
    CHECK(calls == 2);
  }
  {
    Tape tape;
    checkpoint(fn, x);  // not on a path to a root
    CHECK(calls == 3);
  }
  CHECK(calls == 3);
  checkpoint(fn, x);  // no tape: nothing to recompute
  CHECK(calls == 4);
}

TEST_CASE("checkpoint: several inputs, also untracked ones, and parameters reached by constants alone") {
  Parameter weight(Tensor::normal({3, 3}, Dtype::f64, RandomKey{4}));
  const Var a = Var::leaf(Tensor::normal({2, 3}, Dtype::f64, RandomKey{5}));
  const Var b = Tensor::normal({2, 3}, Dtype::f64, RandomKey{6});
  const auto fn = [&](std::span<const Var> xs) { return mul(linear(xs[0], weight), xs[1]); };
  const auto grads = [&](bool checkpointed, bool swapped) {
    const std::array<Var, 2> xs = swapped ? std::array<Var, 2>{b, b} : std::array<Var, 2>{a, b};
    Tape tape;
    tape.backward(sum(checkpointed ? checkpoint(fn, xs) : fn(xs)));
    std::vector<Tensor> out = {weight.grad()};
    if (!swapped) out.push_back(a.grad());
    weight.zero_grad();
    a.cell()->grad = Tensor();
    return out;
  };
  for (const bool swapped : {false, true}) {
    const auto expected = grads(false, swapped), actual = grads(true, swapped);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      REQUIRE(actual[i].defined());
      for (Index j = 0; j < expected[i].size(); ++j) CHECK(actual[i].at(j) == expected[i].at(j));
    }
  }
}

TEST_CASE("checkpoint: a captured value of the outer tape receives its gradient") {
  const Var x = Var::leaf(Tensor::full({}, Dtype::f64, 3));
  Tape tape;
  const Var square = mul(x, x);
  const Var y = checkpoint([&](const Var& in) { return mul(in, square); }, x);  // x³
  tape.backward(y);
  CHECK(x.grad().item() == 27);
}

TEST_CASE("checkpoint: a function that passes a value through keeps its gradient") {
  const Var x = Var::leaf(Tensor::full({}, Dtype::f64, 3));
  Tape tape;
  const Var y = scale(checkpoint([](const Var& in) { return in; }, x), 2);
  tape.backward(y);
  CHECK(x.grad().item() == 2);
}

TEST_CASE("checkpoint: keeps its input alone until backward") {
  const Var x = Var::leaf(Tensor::normal({100, 100}, Dtype::f64, RandomKey{8}));
  const auto deep = [](const Var& in) {
    Var y = in;
    for (int i = 0; i < 10; ++i) y = gelu(y);
    return y;
  };
  const auto kept = [&](bool checkpointed) {
    const Index before = memory::usage().live;
    Tape tape;
    const Var y = checkpointed ? checkpoint(deep, x) : deep(x);
    return memory::usage().live - before;
  };
  CHECK(kept(false) == 10 * x.value().bytes());
  CHECK(kept(true) == x.value().bytes());  // y itself
}

TEST_CASE("checkpoint: an exception in its function leaves the tape as it was") {
  const Var x = Var::leaf(Tensor::full({}, Dtype::f64, 3));
  Tape tape;
  CHECK_THROWS_AS(checkpoint([](const Var&) -> Var { fail("fn: broken"); }, x), Error);
  tape.backward(mul(x, x));
  CHECK(x.grad().item() == 6);
}

TEST_CASE("checkpoint: an input modified before backward is an error") {
  Tensor value = Tensor::normal({4}, Dtype::f64, RandomKey{9});
  const Var x = Var::leaf(value);
  Tape tape;
  const Var y = sum(checkpoint([](const Var& in) { return gelu(in); }, x));
  value.mut<double>()[0] = 1;
  CHECK_THROWS_WITH_AS(tape.backward(y), doctest::Contains("checkpoint: saved `x` (4) was modified"), Error);
}

TEST_CASE("checkpoint: the tape tells forward, backward and recomputation apart") {
  using Pass = Tape::Pass;
  std::vector<Pass> seen;
  const auto layer = [&](const Var& x) {
    seen.push_back(Tape::pass());
    return scale(x, 2);
  };
  CHECK(Tape::pass() == Pass::forward);
  const Var x = Var::leaf(Tensor::full({}, Dtype::f64, 1));
  Tape tape;
  tape.observe([&](const Node&, std::span<const Tensor>) { seen.push_back(Tape::pass()); });
  const auto nested = [&](const Var& in) { return checkpoint(layer, layer(in)); };
  tape.backward(checkpoint(nested, layer(x)));
  const std::vector<Pass> expected = {Pass::forward,   Pass::forward,
                                      Pass::forward,                     // the layers, once each
                                      Pass::backward,                    // of the outer checkpoint
                                      Pass::recompute, Pass::recompute,  // all that lies inside
                                      Pass::recompute,                   // the inner one's layer
                                      Pass::backward};                   // of the first layer
  CHECK(seen == expected);
  CHECK(Tape::pass() == Pass::backward);  // the tape is used up
}

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
