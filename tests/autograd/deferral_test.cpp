#include "tilegrad/autograd/deferral.h"

#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tests/recomputed_ops.h"
#include "tests/tensors.h"
#include "tilegrad/autograd/checkpoint.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

using Function = std::function<Var(const Var& x)>;
using Ops = std::vector<std::string>;

struct Result {
  Tensor dx;
  Ops recomputed;
};

// d mean(y²)/dx for y = f(x).
Result differentiate(const Function& f) {
  const Var x = Var::leaf(random({4, 3}, 1));
  RecomputedOps listener;
  const ListenScope listening(listener);
  Tape tape;
  const Var y = f(x);
  tape.backward(mean(mul(y, y)));
  return {x.grad(), listener.ops};
}

// Checks that a checkpoint changes no bit, and which ops it runs again.
void check_recomputed(const Function& f, const Ops& ops) {
  const Result plain = differentiate(f), again = differentiate([&](const Var&x) { return checkpoint(f, x); });
  for (Index i = 0; i < plain.dx.size(); ++i) CHECK(plain.dx.at(i) == again.dx.at(i));
  CHECK(again.recomputed == ops);
}

}  // namespace

TEST_CASE("deferral: a checkpoint does not compute the ends of its function again") {
  const Parameter up(random({8, 3}, 2)), down(random({3, 8}, 3)), bias(random({3}, 4));
  check_recomputed([&](const Var& x) { return add(x, linear(gelu(linear(x, up)), down)); },
                   {"linear", "gelu"});
  check_recomputed(
      [&](const Var& x) {
        return add(x, dropout(linear(gelu(linear(x, up)), down, bias), 0.5, RandomKey{5}));
      },
      {"linear", "gelu"});
  check_recomputed([&](const Var& x) { return gelu(linear(x, up)); }, {"linear", "gelu"});
  check_recomputed([&](const Var& x) { return add(x, x); }, {});
}

TEST_CASE("deferral: what a rule has saved is computed, though no op reads it") {
  const Parameter weight(random({3, 3}, 2));
  check_recomputed([&](const Var& x) { return linear(add(x, x), weight); }, {"add"});
  check_recomputed([&](const Var& x) { return mul(add(x, x), x); }, {"add", "mul"});
}

TEST_CASE("deferral: checkpoints in checkpoints leave out their ends") {
  const Parameter weight(random({3, 3}, 2));
  const Function inner = [&](const Var& x) { return add(x, linear(gelu(x), weight)); };
  // First the outer one runs again, where the inner one's end is nobody's input; then the inner one does.
  check_recomputed([&](const Var& x) { return checkpoint(inner, gelu(x)); }, {"gelu", "gelu", "gelu"});
  check_recomputed([&](const Var& x) { return gelu(checkpoint(inner, x)); },
                   {"gelu", "linear", "add", "gelu", "gelu"});
}

TEST_CASE("deferral: a function may read what waits, and write to what is waited for") {
  const Parameter weight(random({3, 3}, 2));
  check_recomputed(
      [&](const Var& x) {
        const Var y = linear(x, weight);
        return scale(y, y.value().at(0));
      },
      {"linear", "scale"});
  Tensor constant = random({4, 3}, 3);
  check_recomputed(
      [&](const Var& x) {
        constant.mut<double>()[0] = 7;
        const Var y = add(x, constant);
        constant.mut<double>()[0] = 100;
        return mul(y, y);
      },
      {"add", "mul"});
}

TEST_CASE("deferral: a value that leaves the function has its elements") {
  Var kept;
  differentiate([&](const Var& x) {
    return checkpoint(
        [&](const Var& in) {
          kept = add(in, in);
          return kept;
        },
        x);
  });
  CHECK(kept.value().at(5) == 2 * random({4, 3}, 1).at(5));
}

TEST_CASE("deferral: a chain of many ops is computed, and forgotten, without a deep stack") {
  constexpr int kOps = 100000;
  const auto chain = [](const Var& x) {
    Var y = x;
    for (int i = 0; i < kOps; ++i) y = add(y, x);
    return y;
  };
  CHECK(differentiate([&](const Var& x) { return checkpoint(chain, x); }).recomputed.empty());
  CHECK(differentiate([&](const Var& x) {
          return checkpoint([&](const Var& in) { return gelu(chain(in)); }, x);
        }).recomputed.size() == kOps + 1);
}

TEST_CASE("deferral: outputs that are left out take no memory") {
  constexpr Index kRows = 4096;
  const Var x = Var::leaf(random({kRows, 8}, 1));
  const auto peak_of_backward = [&](const Function& f) {
    Tape tape;
    const Var y = checkpoint(f, x);
    const Tensor dy = Tensor::full(y.shape(), Dtype::f64, 1);
    memory::reset_peak();
    const Index before = memory::usage().live;
    tape.backward(y, dy);
    return memory::usage().peak - before;
  };
  // The gradient of x, once for each of its two uses at most.
  CHECK(peak_of_backward([](const Var& in) { return add(in, in); }) <= 2 * x.value().bytes());
}

TEST_CASE("deferral: errors keep their words, and end it") {
  const Parameter weight(random({3, 3}, 2)), wrong(random({3, 4}, 2));
  bool again = false;
  const auto fails_again = [&](const Var& x) {
    return linear(x, std::exchange(again, true) ? wrong : weight);
  };
  CHECK_THROWS_WITH_AS(differentiate([&](const Var& x) { return checkpoint(fails_again, x); }),
                       doctest::Contains("linear: "), Error);
  CHECK(Deferral::active() == nullptr);

  const Tensor infinite = Tensor::full({4, 3}, Dtype::f64, std::numeric_limits<double>::infinity());
  bool second = false;
  const auto overflows = [&](const Var& x) {
    return std::exchange(second, true) ? add(x, infinite) : add(x, x);
  };
  const Var x = Var::leaf(random({4, 3}, 1));
  Tape tape({.detect_anomaly = true});
  const Var y = mean(checkpoint(overflows, x));
  CHECK_THROWS_WITH_AS(tape.backward(y), doctest::Contains("add: made the first NaN or Inf"), Error);
  CHECK(Deferral::active() == nullptr);
}

TEST_CASE("deferral: a tensor without elements says so") {
  const Tensor none = Tensor::without_elements({2, 2}, Dtype::f32);
  CHECK(none.shape() == Shape{2, 2});
  CHECK_THROWS_WITH_AS(none.view<float>(), "tensor: it has no elements", Error);
  CHECK_THROWS_WITH_AS(none.clone(), "tensor: it has no elements", Error);
}
