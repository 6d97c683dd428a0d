#include "tilegrad/autograd/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "tilegrad/autograd/tape.h"

namespace tilegrad {

namespace {

// ⟨r, f(inputs)⟩, with nothing recorded.
double weighted_output(const Differentiable& f, const std::vector<Tensor>& inputs, const Tensor& r) {
  const Tape::Pause pause;
  const std::vector<Var> constants(inputs.begin(), inputs.end());
  const Tensor y = f(constants).value();
  const auto a = y.view<double>(), b = r.view<double>();
  double total = 0;
  for (std::size_t i = 0; i < a.size(); ++i) total += a[i] * b[i];
  return total;
}

// Gradients of ⟨r, f(inputs)⟩ by the tape; sets r.
std::vector<Tensor> analytic_gradients(const Differentiable& f, const std::vector<Tensor>& inputs,
                                       RandomKey key, Tensor& r) {
  std::vector<Var> leaves;
  for (const Tensor& x : inputs) leaves.push_back(Var::leaf(x));
  Tape tape;
  const Var y = f(leaves);
  r = Tensor::normal(y.shape(), Dtype::f64, key);
  tape.backward(y, r);
  std::vector<Tensor> grads;
  for (const Var& leaf : leaves) grads.push_back(leaf.grad());
  return grads;
}

// The fourth-order central difference at one coordinate. Works on a copy of the input, so that the caller's
// tensors and what they share memory with stay as they are.
double numeric_derivative(const Differentiable& f, std::vector<Tensor> inputs, std::size_t input, Index at,
                          const Tensor& r, double step) {
  const double x = inputs[input].at(at);
  const double h = step * std::max(1.0, std::abs(x));
  const auto loss = [&](double offset) {
    Tensor moved = inputs[input].clone();
    moved.mut<double>()[at] = x + offset;
    std::vector<Tensor> shifted = inputs;
    shifted[input] = moved;
    return weighted_output(f, shifted, r);
  };
  return (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h);
}

}  // namespace

GradcheckResult gradcheck(const Differentiable& f, const std::vector<Tensor>& inputs,
                          const GradcheckOptions& options) {
  for (const Tensor& x : inputs)
    check(x.dtype() == Dtype::f64, "gradcheck: inputs are f64, not {}", x.dtype());
  Tensor r;
  const std::vector<Tensor> grads = analytic_gradients(f, inputs, options.key, r);

  GradcheckResult result;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    for (Index at = 0; at < inputs[i].size(); ++at) {
      const double analytic = grads[i].defined() ? grads[i].at(at) : 0.0;
      const double numeric = numeric_derivative(f, inputs, i, at, r, options.step);
      const double difference = std::abs(numeric - analytic);
      const double error = difference / std::max(1.0, std::abs(numeric));
      ++result.inputs_checked;
      // Written so that a NaN fails.
      if (!(difference <= options.absolute + options.relative * std::abs(numeric))) result.passed = false;
      if (!(error <= result.worst_error)) {
        result.worst_error = error;
        result.worst =
            fmt::format("input {} at {}: numeric {:.12g}, analytic {:.12g}", i, at, numeric, analytic);
      }
    }
  }
  return result;
}

}  // namespace tilegrad
