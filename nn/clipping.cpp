#include "tilegrad/nn/clipping.h"

#include <cmath>

#include "tilegrad/kernels/elementwise.h"

namespace tilegrad::nn {

std::vector<Parameter> share(const std::vector<NamedParameter>& parameters) {
  std::vector<Parameter> shared;
  for (const NamedParameter& p : parameters) shared.push_back(p.parameter->share());
  return shared;
}

double gradient_norm(std::string_view optimizer, std::span<const Parameter> parameters) {
  double total = 0;
  for (const Parameter& p : parameters) {
    const Tensor& grad = p.grad();
    if (!grad.defined()) continue;
    total += with_float_type(optimizer, grad.dtype(),
                             [&]<class T>() { return kernels::sum_of_squares<T>(grad.view<T>()); });
  }
  const double norm = std::sqrt(total);
  check(std::isfinite(norm), "{}: the norm of the gradient is {}, the parameters stay as they were",
        optimizer, norm);
  return norm;
}

}  // namespace tilegrad::nn
