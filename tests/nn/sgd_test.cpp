#include "tilegrad/nn/sgd.h"

#include "tests/nn/optimizer_checks.h"
#include "tests/nn/tiny.h"

using namespace tilegrad;
using namespace tilegrad::test;

TEST_CASE("Sgd: steps are those of the formula, with each kind of momentum") {
  for (const nn::Sgd::Config& config : {nn::Sgd::Config{}, nn::Sgd::Config{.weight_decay = 0.2},
                                        nn::Sgd::Config{.momentum = 0.9, .weight_decay = 0.1},
                                        nn::Sgd::Config{.momentum = 0.9, .nesterov = true}}) {
    std::vector<double> v(15, 0.0);
    check_steps<nn::Sgd>(config, [&](std::size_t i, int, double w, double gradient) {
      const double g = gradient + config.weight_decay * w;
      v[i] = config.momentum * v[i] + g;
      return w - 0.1 * (config.nesterov ? g + config.momentum * v[i] : v[i]);
    });
  }
}

TEST_CASE("Sgd: clipping scales all gradients by one factor, decay acts on matrices alone") {
  Parameter a(Tensor::zeros({1, 2}, Dtype::f64)), b(Tensor::full({2}, Dtype::f64, 1));
  a.grad() = Tensor::from<double>({1, 2}, {1, 2});
  b.grad() = Tensor::from<double>({2}, {2, 4});
  CHECK(nn::Sgd({{"a", &a}, {"b", &b}}, {.weight_decay = 1, .clip = 2.5}).step(1) == doctest::Approx(5));
  CHECK(a.value().at(1) == doctest::Approx(-1));
  CHECK(b.value().at(1) == doctest::Approx(1 - 2));
}

TEST_CASE("Sgd: parameters step together as each would alone") {
  check_steps_together<nn::Sgd>({.weight_decay = 0.3, .clip = 0});
  check_steps_together<nn::Sgd>({.momentum = 0.9, .weight_decay = 0.3, .clip = 0});
}

TEST_CASE("Sgd: a setting that makes no sense is an error") {
  Parameter w(Tensor::full({2}, Dtype::f64, 1));
  CHECK(message_of([&] { nn::Sgd({{"w", &w}}, {.momentum = 1}); }) == "Sgd: momentum is 1, not in [0, 1)");
  CHECK(message_of([&] { nn::Sgd({{"w", &w}}, {.nesterov = true}); }) == "Sgd: nesterov without momentum");
}

TEST_CASE("Sgd: a gradient that is not finite is an error and changes nothing") {
  check_refuses_gradients<nn::Sgd>("Sgd");
}

TEST_CASE("Sgd: state that is saved and loaded continues with the same bits") {
  check_resumes<nn::Sgd>({.momentum = 0.9}, {"w.velocity"});
  check_resumes<nn::Sgd>({}, {});
}
