#include "tilegrad/nn/sgd.h"

#include "tests/nn/tiny.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

Tensor numbers(const Shape& shape, std::uint64_t seed) {
  return Tensor::normal(shape, Dtype::f64, RandomKey{seed});
}

}  // namespace

TEST_CASE("Sgd: steps are those of the formula, with each kind of momentum") {
  for (const nn::Sgd::Config& config : {nn::Sgd::Config{}, nn::Sgd::Config{.weight_decay = 0.2},
                                        nn::Sgd::Config{.momentum = 0.9, .weight_decay = 0.1},
                                        nn::Sgd::Config{.momentum = 0.9, .nesterov = true}}) {
    Parameter w(numbers({3, 5}, 1));
    nn::Sgd optimizer({{"w", &w}}, config);
    std::vector<double> v(15, 0.0), expected(15);
    for (std::size_t i = 0; i < 15; ++i) expected[i] = w.value().at(static_cast<Index>(i));
    for (std::uint64_t t = 2; t <= 4; ++t) {
      w.grad() = numbers({3, 5}, t);
      optimizer.step(0.1);
      for (std::size_t i = 0; i < 15; ++i) {
        const double g = w.grad().at(static_cast<Index>(i)) + config.weight_decay * expected[i];
        v[i] = config.momentum * v[i] + g;
        expected[i] -= 0.1 * (config.nesterov ? g + config.momentum * v[i] : v[i]);
        CHECK(w.value().at(static_cast<Index>(i)) == doctest::Approx(expected[i]).epsilon(1e-13));
      }
    }
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

TEST_CASE("Sgd: a setting or a gradient that makes no sense is an error, and changes nothing") {
  Parameter w(Tensor::full({2}, Dtype::f64, 1)), other(Tensor::full({2}, Dtype::f64, 1));
  CHECK(message_of([&] { nn::Sgd({{"w", &w}}, {.momentum = 1}); }) == "Sgd: momentum is 1, not in [0, 1)");
  CHECK(message_of([&] { nn::Sgd({{"w", &w}}, {.nesterov = true}); }) == "Sgd: nesterov without momentum");
  nn::Sgd optimizer({{"other", &other}, {"w", &w}}, {});
  other.grad() = Tensor::full({2}, Dtype::f64, 1);
  w.grad() = Tensor::from<double>({2}, {0, std::nan("")});
  CHECK(message_of([&] { optimizer.step(0.1); }) ==
        "Sgd: the norm of the gradient is nan, the parameters stay as they were");
  CHECK(other.value().at(0) == 1);
}

TEST_CASE("Sgd: state that is saved and loaded continues with the same bits") {
  const auto train = [](nn::Optimizer& optimizer, Parameter& w, int from, int to) {
    for (int step = from; step < to; ++step) {
      w.grad() = numbers({3, 5}, static_cast<std::uint64_t>(step));
      optimizer.step(0.1);
    }
  };
  Parameter w(numbers({3, 5}, 9));
  nn::Sgd first({{"w", &w}}, {.momentum = 0.9});
  train(first, w, 0, 3);
  CHECK(first.steps() == 3);
  Parameter copy(w.value().clone());
  nn::Sgd second({{"w", &copy}}, {.momentum = 0.9});
  REQUIRE(first.state().size() == 1);
  CHECK(first.state()[0].name == "w.velocity");
  *second.state()[0].tensor = first.state()[0].tensor->clone();
  train(first, w, 3, 6);
  train(second, copy, 3, 6);
  CHECK(distance(w.value(), copy.value()) == 0);
  CHECK(nn::Sgd({{"w", &w}}, {}).state().empty());
}
