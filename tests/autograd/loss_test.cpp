#include <doctest/doctest.h>

#include "tests/message_of.h"
#include "tests/tensors.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

const Tensor kSomeTargets = integers({4, kIgnored, 0, 2, 2, kIgnored}).reshape({2, 3});

struct LossAndGradients {
  Tensor loss, dx, dweight;
};

// Loss and gradients for the cotangent dy, which arrives twice: gradients accumulate.
template <class F>
LossAndGradients walk_twice(F&& loss_of, Dtype dtype, double dy) {
  const Var x = random_leaf({2, 3, 4}, 1, dtype), weight = random_leaf({5, 4}, 2, dtype);
  LossAndGradients result;
  for (int i = 0; i < 2; ++i) {
    Tape tape;
    const Var loss = loss_of(x, weight);
    tape.backward(loss, Tensor::full({}, dtype, dy));
    result.loss = loss.value();
  }
  result.dx = x.grad();
  result.dweight = weight.grad();
  return result;
}

Var fused_loss(const Var& x, const Var& weight) { return linear_cross_entropy(x, weight, kSomeTargets); }
Var composed_loss(const Var& x, const Var& weight) { return cross_entropy(linear(x, weight), kSomeTargets); }

}  // namespace

TEST_CASE("linear_cross_entropy: is cross_entropy of linear, for any cotangent, and adds to gradients") {
  for (const double dy : {1.0, -0.3}) {
    const LossAndGradients a = walk_twice(fused_loss, Dtype::f64, dy),
                           b = walk_twice(composed_loss, Dtype::f64, dy);
    CHECK(distance(a.loss, b.loss) <= 1e-15);
    CHECK(distance(a.dx, b.dx) <= 1e-15);
    CHECK(distance(a.dweight, b.dweight) <= 1e-15);
  }
}

TEST_CASE("linear_cross_entropy: has the bits of the composition where the logits are one block") {
  for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
    const LossAndGradients a = walk_twice(fused_loss, dtype, 1), b = walk_twice(composed_loss, dtype, 1);
    CHECK(distance(a.loss, b.loss) == 0);
    CHECK(distance(a.dx, b.dx) == 0);
    CHECK(distance(a.dweight, b.dweight) == 0);
  }
}

TEST_CASE("linear_cross_entropy: x and weight may be one value, and either may be a constant") {
  const Tensor square = random({3, 3}, 1), targets = integers({2, 0, 1});
  const auto gradient = [&](bool is_fused, bool x_is_leaf, bool weight_is_leaf) {
    const Var leaf = Var::leaf(square);
    const Var x = x_is_leaf ? leaf : Var(square), weight = weight_is_leaf ? leaf : Var(square);
    Tape tape;
    tape.backward(is_fused ? linear_cross_entropy(x, weight, targets)
                           : cross_entropy(linear(x, weight), targets));
    return leaf.grad();
  };
  CHECK(distance(gradient(true, true, true), gradient(false, true, true)) <= 1e-15);
  CHECK(distance(gradient(true, true, false), gradient(false, true, false)) <= 1e-15);
  CHECK(distance(gradient(true, false, true), gradient(false, false, true)) <= 1e-15);
}

TEST_CASE("linear_cross_entropy: keeps the gradients that it computed, and without a tape nothing") {
  const Var x = random_leaf({2, 3, 4}, 1), weight = random_leaf({5, 4}, 2);
  const memory::ByCategory before = memory::usage().live_by_category;
  const auto kept = [&](memory::Category category) {
    return live(category) - before[static_cast<std::size_t>(category)];
  };
  const auto forget = [](const Var&) {};
  {
    Tape tape;
    forget(fused_loss(x, weight));
    CHECK(kept(memory::Category::gradients) == x.value().bytes() + weight.value().bytes());
    CHECK(kept(memory::Category::activations) == 0);
  }
  memory::reset_peak();
  forget(fused_loss(x, weight));
  CHECK(memory::usage().at_peak[static_cast<std::size_t>(memory::Category::gradients)] ==
        before[static_cast<std::size_t>(memory::Category::gradients)]);
  Tape tape;
  const Tape::Pause pause;
  forget(fused_loss(x, weight));
  CHECK(memory::usage().at_peak[static_cast<std::size_t>(memory::Category::gradients)] ==
        before[static_cast<std::size_t>(memory::Category::gradients)]);
}

TEST_CASE("linear_cross_entropy: errors name the op and both values") {
  const Var x = random({2, 3}, 1), weight = random({4, 3}, 2);
  const auto message = [](const Var& a, const Var& b, const Tensor& targets) {
    return message_of([&] { linear_cross_entropy(a, b, targets); });
  };
  CHECK(message(x, random({3}, 3), integers({0, 1})) == "linear_cross_entropy: weight is (3), not (out, in)");
  CHECK(message(x, random({4, 2}, 3), integers({0, 1})) ==
        "linear_cross_entropy: inner sizes differ: x is (2, 3), weight is (4, 2)");
  CHECK(message(x, random({4, 3}, 3, Dtype::f32), integers({0, 1})) ==
        "linear_cross_entropy: dtypes differ: f64 and f32");
  CHECK(message(x, weight, integers({0})) == "linear_cross_entropy: targets are (1), logits (2, 4)");
  CHECK(message(x, weight, integers({0, 4})) == "linear_cross_entropy: target 4 is not in [0, 4)");
  CHECK(message(x, weight, integers({kIgnored, kIgnored})) ==
        "linear_cross_entropy: no position counts among (2)");
}
