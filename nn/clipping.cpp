#include "tilegrad/nn/clipping.h"

#include <cmath>

#include "tilegrad/kernels/elementwise.h"

namespace tilegrad::nn {

std::vector<Parameter> share(const std::vector<NamedParameter>& parameters) {
  std::vector<Parameter> shared;
  for (const NamedParameter& p : parameters) shared.push_back(p.parameter->share());
  return shared;
}

std::vector<std::vector<std::size_t>> runs_with_gradient(std::span<const Parameter> parameters) {
  std::vector<std::vector<std::size_t>> runs;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters[i].grad().defined()) continue;
    const auto dtype_of_run = [&] { return parameters[runs.back()[0]].grad().dtype(); };
    if (runs.empty() || dtype_of_run() != parameters[i].grad().dtype()) runs.emplace_back();
    runs.back().push_back(i);
  }
  return runs;
}

double gradient_norm(std::string_view optimizer, std::span<const Parameter> parameters) {
  double total = 0;
  for (const auto& run : runs_with_gradient(parameters)) {
    total += with_float_type(optimizer, parameters[run[0]].grad().dtype(), [&]<class T>() {
      std::vector<std::span<const T>> gradients;
      for (const std::size_t i : run) gradients.push_back(parameters[i].grad().view<T>());
      return kernels::sum_of_squares<T>(gradients);
    });
  }
  const double norm = std::sqrt(total);
  check(std::isfinite(norm), "{}: the norm of the gradient is {}, the parameters stay as they were",
        optimizer, norm);
  return norm;
}

}  // namespace tilegrad::nn
