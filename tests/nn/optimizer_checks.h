#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/message_of.h"
#include "tests/tensors.h"
#include "tilegrad/nn/module.h"

/// What every optimiser promises, checked in one place.
namespace tilegrad::test {

/// Three steps of a matrix of 15 numbers, with learning rate 0.1, are those of a formula: formula(i, t, w, g) is
/// number i after step t (1, 2, 3), of w before it and of the gradient g.
template <class Optimizer, class Formula>
void check_steps(const typename Optimizer::Config& config, Formula&& formula) {
  Parameter w(random({3, 5}, 1));
  Optimizer optimizer({{"w", &w}}, config);
  std::vector<double> expected;
  for (Index i = 0; i < 15; ++i) expected.push_back(w.value().at(i));
  for (int t = 1; t <= 3; ++t) {
    w.grad() = random({3, 5}, static_cast<std::uint64_t>(t) + 1);
    optimizer.step(0.1);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const auto at = static_cast<Index>(i);
      expected[i] = formula(i, t, expected[i], w.grad().at(at));
      CHECK(w.value().at(at) == doctest::Approx(expected[i]).epsilon(1e-13));
    }
  }
}

/// Parameters that step together move as each would alone, without clipping: of two types in turn, large and small, some
/// without a gradient, which do not move.
template <class Optimizer>
void check_steps_together(const typename Optimizer::Config& config) {
  struct Case {
    Shape shape;
    Dtype dtype;
    bool has_gradient;
  };
  const std::vector<Case> cases = {{{3, 5}, Dtype::f64, true},     {{2, 2}, Dtype::f64, false},
                                   {{7}, Dtype::f32, true},        {{200, 100}, Dtype::f32, true},
                                   {{200, 100}, Dtype::f64, true}, {{4}, Dtype::f64, true}};
  const auto make = [&](std::size_t i) { return Parameter(random(cases[i].shape, i, cases[i].dtype)); };
  const auto give_gradient = [&](Parameter& w, std::size_t i) {
    if (cases[i].has_gradient) w.grad() = random(cases[i].shape, 10 + i, cases[i].dtype);
  };
  std::vector<Parameter> parameters;
  for (std::size_t i = 0; i < cases.size(); ++i) parameters.push_back(make(i));
  std::vector<nn::NamedParameter> named;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    named.push_back({"w" + std::to_string(i), &parameters[i]});
    give_gradient(parameters[i], i);
  }
  Optimizer together(named, config);
  together.step(0.1);
  together.step(0.1);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    CAPTURE(i);
    Parameter alone = make(i);
    give_gradient(alone, i);
    Optimizer optimizer({{"w", &alone}}, config);
    optimizer.step(0.1);
    optimizer.step(0.1);
    CHECK(distance(parameters[i].value(), alone.value()) == 0);
    CHECK((distance(alone.value(), make(i).value()) > 0) == cases[i].has_gradient);
  }
}

/// A gradient with a NaN or an Inf is an error, and no parameter moves; nor does what check_state(optimizer) looks at.
template <class Optimizer, class CheckState>
void check_refuses_gradients(const std::string& name, CheckState&& check_state) {
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    Parameter good(Tensor::full({2}, Dtype::f64, 1)), w(Tensor::full({2}, Dtype::f64, 1));
    Optimizer optimizer({{"good", &good}, {"w", &w}}, {});
    good.grad() = Tensor::full({2}, Dtype::f64, 1);
    w.grad() = Tensor::from<double>({2}, {0, bad});
    CHECK(message_of([&] { optimizer.step(0.1); }) == name + ": the norm of the gradient is " +
                                                          (std::isnan(bad) ? "nan" : "inf") +
                                                          ", the parameters stay as they were");
    CHECK(good.value().at(0) == 1);
    CHECK(w.value().at(0) == 1);
    check_state(optimizer);
  }
}

template <class Optimizer>
void check_refuses_gradients(const std::string& name) {
  check_refuses_gradients<Optimizer>(name, [](Optimizer&) {});
}

/// What is saved after three steps continues with the same bits in an optimizer of its own. Its tensors, for a parameter
/// "w", have these names.
template <class Optimizer>
void check_resumes(const typename Optimizer::Config& config, const std::vector<std::string>& names) {
  const auto train = [](Optimizer& optimizer, Parameter& w, int from, int to) {
    for (int step = from; step < to; ++step) {
      w.grad() = random({3, 5}, static_cast<std::uint64_t>(step));
      optimizer.step(0.1);
    }
  };
  Parameter w(random({3, 5}, 9));
  Optimizer first({{"w", &w}}, config);
  train(first, w, 0, 3);
  CHECK(first.steps() == 3);
  Parameter copy(w.value().clone());
  Optimizer second({{"w", &copy}}, config);
  const auto saved = first.state(), loaded = second.state();
  REQUIRE(saved.size() == names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    CHECK(saved[i].name == names[i]);
    *loaded[i].tensor = saved[i].tensor->clone();
  }
  second.set_steps(first.steps());
  train(first, w, 3, 6);
  train(second, copy, 3, 6);
  CHECK(distance(w.value(), copy.value()) == 0);
}

}  // namespace tilegrad::test
