// An MLP that learns which of two spirals a point lies on, and draws what it has learnt.
#include <cmath>
#include <cstdio>
#include <numbers>

#include "tilegrad/tilegrad.h"

using namespace tilegrad;

struct Classifier {
  nn::Linear first{2, 32, true, 1.0, Dtype::f32, RandomKey{1}};
  nn::Linear second{32, 32, true, 0.2, Dtype::f32, RandomKey{2}};
  nn::Linear last{32, 2, true, 0.2, Dtype::f32, RandomKey{3}};

  Var operator()(const Var& x) const { return last(tanh(second(tanh(first(x))))); }  // (N, 2) -> (N, 2)
  void visit(auto&& f) {
    f("first", first);
    f("second", second);
    f("last", last);
  }
};

int main() {
  const Index points = 200, side = 24;
  Tensor x = Tensor::empty({points, 2}, Dtype::f32), arm = Tensor::empty({points}, Dtype::i32);
  for (Index i = 0; i < points; ++i) {
    const double r = 0.1 + 0.9 * static_cast<double>(i) / points;
    const double angle = std::numbers::pi * (3 * r + static_cast<double>(i % 2));
    x.mut<float>()[2 * i] = static_cast<float>(r * std::cos(angle));
    x.mut<float>()[2 * i + 1] = static_cast<float>(r * std::sin(angle));
    arm.mut<std::int32_t>()[i] = static_cast<std::int32_t>(i % 2);
  }

  Classifier model;
  nn::Sgd optimizer(nn::parameters(model), {.momentum = 0.9, .nesterov = true});
  for (int step = 1; step <= 400; ++step) {
    Tape tape;
    const Var loss = cross_entropy(model(x), arm);
    tape.backward(loss);
    optimizer.step(0.2);
    nn::zero_grad(nn::parameters(model));
    if (step % 100 == 0) std::printf("step %3d  loss %.4f\n", step, loss.value().item());
  }

  Tensor plane = Tensor::empty({side * side, 2}, Dtype::f32);
  for (Index i = 0; i < side * side; ++i) {
    plane.mut<float>()[2 * i] = static_cast<float>(i % side) * 2 / (side - 1) - 1;
    plane.mut<float>()[2 * i + 1] = 1 - static_cast<float>(i / side) * 2 / (side - 1);
  }
  const Tensor guess = argmax(model(plane)), answer = argmax(model(x));
  for (Index i = 0; i < side * side; ++i) {
    std::printf("%s%s", guess.at(i) == 0 ? ". " : "# ", i % side == side - 1 ? "\n" : "");
  }
  int right = 0;
  for (Index i = 0; i < points; ++i) right += answer.at(i) == arm.at(i);
  std::printf("%d of %d points are right\n", right, static_cast<int>(points));
  return right > points * 98 / 100 ? 0 : 1;
}
