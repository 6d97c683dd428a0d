#include "tilegrad/nn/clipping.h"

#include <cmath>

#include "tilegrad/kernels/elementwise.h"

namespace tilegrad::nn {

double gradient_norm(std::string_view optimizer, const std::vector<NamedParameter>& parameters) {
  double total = 0;
  for (const NamedParameter& p : parameters) {
    const Tensor& grad = p.parameter->grad();
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
