#include "tilegrad/autograd/checkpoint.h"

#include <doctest/doctest.h>

#include "tilegrad/autograd/op_listener.h"
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

namespace {

// Notes Tape::pass() when a node goes backward.
struct NodesOfBackward : OpListener {
  explicit NodesOfBackward(std::vector<Tape::Pass>& passes) : seen(passes) {}
  void begin(std::string_view) override {
    if (Tape::pass() == Tape::Pass::backward) seen.push_back(Tape::Pass::backward);
  }
  void end() override {}
  void recorded(std::string_view, Index) override {}

  std::vector<Tape::Pass>& seen;
};

}  // namespace

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
  NodesOfBackward nodes(seen);
  const ListenScope listen(nodes);
  const auto nested = [&](const Var& in) { return checkpoint(layer, layer(in)); };
  tape.backward(checkpoint(nested, layer(x)));
  const std::vector<Pass> expected = {
      Pass::forward,   Pass::forward,   Pass::forward,  // the layers, once each
      Pass::backward,                                   // the outer checkpoint
      Pass::recompute, Pass::recompute,                 // both layers inside
      Pass::backward,  Pass::recompute,                 // the inner checkpoint, and its layer again
      Pass::backward,  Pass::backward,                  // the layers inside, last one first
      Pass::backward};                                  // the first layer
  CHECK(seen == expected);
  CHECK(Tape::pass() == Pass::backward);  // the tape is used up
}
