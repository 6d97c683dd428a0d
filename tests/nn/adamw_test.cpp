#include "tilegrad/nn/adamw.h"

#include "tests/nn/optimizer_checks.h"
#include "tests/nn/tiny.h"

using namespace tilegrad;
using namespace tilegrad::test;

TEST_CASE("AdamW: a step is the formula of the paper") {
  std::vector<double> m(15, 0.0), v(15, 0.0);
  check_steps<nn::AdamW>({.beta1 = 0.8, .beta2 = 0.95, .eps = 1e-3, .weight_decay = 0.2, .clip = 0},
                         [&](std::size_t i, int t, double w, double g) {
                           m[i] = 0.8 * m[i] + 0.2 * g;
                           v[i] = 0.95 * v[i] + 0.05 * g * g;
                           const double m_hat = m[i] / (1 - std::pow(0.8, t));
                           const double v_hat = v[i] / (1 - std::pow(0.95, t));
                           return w - 0.1 * (m_hat / (std::sqrt(v_hat) + 1e-3) + 0.2 * w);
                         });
}

TEST_CASE("AdamW: clipping scales all gradients by one factor, and step returns the norm before") {
  Parameter a(Tensor::zeros({1, 2}, Dtype::f64)), b(Tensor::zeros({2}, Dtype::f64));
  nn::AdamW clipped({{"a", &a}, {"b", &b}}, {.clip = 2.5});
  a.grad() = Tensor::from<double>({1, 2}, {1, 2});
  b.grad() = Tensor::from<double>({2}, {2, 4});
  CHECK(clipped.step(0) == doctest::Approx(5));
  // With lr 0 nothing moves, but the first moment is (1 − β1) times the clipped gradient.
  CHECK(clipped.state()[0].tensor->at(1) == doctest::Approx(0.1 * 2 / 2));
  CHECK(clipped.state()[2].tensor->at(1) == doctest::Approx(0.1 * 4 / 2));
  CHECK(a.value().at(1) == 0);
}

TEST_CASE("AdamW: decay acts on matrices alone") {
  Parameter matrix(Tensor::full({2, 2}, Dtype::f64, 1)), bias(Tensor::full({2}, Dtype::f64, 1));
  matrix.grad() = Tensor::zeros({2, 2}, Dtype::f64);
  bias.grad() = Tensor::zeros({2}, Dtype::f64);
  nn::AdamW({{"matrix", &matrix}, {"bias", &bias}}, {.weight_decay = 0.5}).step(0.1);
  CHECK(matrix.value().at(0) == doctest::Approx(0.95));
  CHECK(bias.value().at(0) == 1);
}

TEST_CASE("AdamW: a gradient that is not finite is an error and changes nothing") {
  check_refuses_gradients<nn::AdamW>("AdamW", [](nn::AdamW& optimizer) {
    CHECK(optimizer.steps() == 0);
    CHECK(optimizer.state()[0].tensor->at(0) == 0);
  });
}

TEST_CASE("AdamW: parameters step together as each would alone") {
  check_steps_together<nn::AdamW>({.weight_decay = 0.3, .clip = 0});
}

TEST_CASE("AdamW: a parameter without a gradient stays as it is") {
  Parameter used(Tensor::full({2, 2}, Dtype::f64, 1)), unused(Tensor::full({2, 2}, Dtype::f64, 1));
  used.grad() = Tensor::full({2, 2}, Dtype::f64, 1);
  nn::AdamW({{"used", &used}, {"unused", &unused}}, {}).step(0.1);
  CHECK(used.value().at(0) < 1);
  CHECK(unused.value().at(0) == 1);
}

TEST_CASE("AdamW: state that is saved and loaded continues with the same bits") {
  check_resumes<nn::AdamW>({}, {"w.m", "w.v"});
}

TEST_CASE("AdamW: its memory is counted as the optimizer's") {
  const Index before = live(memory::Category::optimizer);
  nn::Transformer model(tiny_model_config(), RandomKey{1});
  {
    const nn::AdamW optimizer(nn::parameters(model), {});
    CHECK(live(memory::Category::optimizer) - before >= 2 * nn::count(nn::parameters(model)) * 8);
  }
  CHECK(live(memory::Category::optimizer) == before);
}

TEST_CASE("AdamW: goes on with a parameter that moved, or whose model has ended") {
  Parameter before(Tensor::full({2, 2}, Dtype::f64, 1));
  nn::AdamW optimizer({{"w", &before}}, {.weight_decay = 0.5, .clip = 0});
  Tensor value;
  {
    Parameter after = std::move(before);
    after.grad() = Tensor::zeros({2, 2}, Dtype::f64);
    optimizer.step(0.1);
    CHECK(after.value().at(0) == doctest::Approx(0.95));
    value = Tensor::full({2, 2}, Dtype::f64, 3);
    after.value() = value;  // as loading weights may do
    optimizer.step(0.1);
    CHECK(value.at(0) == doctest::Approx(3 * 0.95));
  }
  optimizer.step(0.1);
  CHECK(value.at(0) == doctest::Approx(3 * 0.95 * 0.95));
}
