#include "tilegrad/autograd/gradcheck.h"

#include <doctest/doctest.h>

#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"

using namespace tilegrad;

namespace {

// y = x³ with a backward that is wrong by a factor.
struct CubeRule {
  static constexpr std::string_view name = "cube";
  Tensor x;
  double factor;

  void backward(const Tensor& dy, InputGrads& dx) {
    const auto xs = x.view<double>(), dys = dy.view<double>();
    const auto grad = dx.grad<double>(0);
    for (std::size_t i = 0; i < grad.to.size(); ++i) {
      kernels::store(grad.to[i], grad.write, factor * 3 * xs[i] * xs[i] * dys[i]);
    }
  }
};

Var cube(const Var& x, double factor) {
  Tensor y = Tensor::empty_like(x.value());
  const auto xs = x.value().view<double>();
  auto ys = y.mut<double>();
  for (std::size_t i = 0; i < ys.size(); ++i) ys[i] = xs[i] * xs[i] * xs[i];
  return record(y, {x}, [&] { return CubeRule{x.value(), factor}; });
}

const std::vector<Tensor> kInput = {Tensor::normal({3, 4}, Dtype::f64, RandomKey{5})};

}  // namespace

TEST_CASE("gradcheck: accepts a right gradient") {
  const auto result = gradcheck([](std::span<const Var> in) { return cube(in[0], 1.0); }, kInput);
  CHECK(result.passed);
  CHECK(result.inputs_checked == 12);
  CHECK(result.worst_error < 1e-9);
}

TEST_CASE("gradcheck: rejects a gradient that is wrong by one percent") {
  CHECK_FALSE(gradcheck([](std::span<const Var> in) { return cube(in[0], 1.01); }, kInput).passed);
}

TEST_CASE("gradcheck: rejects a gradient that is wrong by one part in a million") {
  CHECK_FALSE(gradcheck([](std::span<const Var> in) { return cube(in[0], 1.000001); }, kInput).passed);
}

TEST_CASE("gradcheck: rejects a missing gradient") {
  const auto result = gradcheck([](std::span<const Var> in) { return add(cube(in[0], 1.0), in[1].detach()); },
                                {kInput[0], kInput[0]});
  CHECK_FALSE(result.passed);
  CHECK(result.worst.find("input 1") == 0);
}

TEST_CASE("gradcheck: rejects a gradient that is NaN") {
  CHECK_FALSE(gradcheck([](std::span<const Var> in) { return cube(in[0], std::nan("")); }, kInput).passed);
}

TEST_CASE("gradcheck: leaves its inputs as they were") {
  const Tensor x = Tensor::normal({5}, Dtype::f64, RandomKey{6});
  const Tensor before = x.clone();
  gradcheck([](std::span<const Var> in) { return cube(in[0], 1.0); }, {x});
  for (Index i = 0; i < x.size(); ++i) CHECK(x.at(i) == before.at(i));
}

TEST_CASE("gradcheck: refuses inputs in f32") {
  CHECK_THROWS_WITH_AS(
      gradcheck([](std::span<const Var> in) { return in[0]; }, {Tensor::zeros({2}, Dtype::f32)}),
      "gradcheck: inputs are f64, not f32", Error);
}
