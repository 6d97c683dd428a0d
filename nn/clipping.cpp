#include "tilegrad/nn/clipping.h"

#include <cmath>

#include "tilegrad/kernels/elementwise.h"

namespace tilegrad::nn {

std::vector<Parameter> share(const std::vector<NamedParameter>& parameters) {
  std::vector<Parameter> shared;
  for (const NamedParameter& p : parameters) shared.push_back(p.parameter->share());
  return shared;
}

std::vector<ParameterRun> runs_with_gradient(std::span<const Parameter> parameters) {
  std::vector<ParameterRun> runs;
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
  for_each_run(optimizer, parameters, [&]<class T>(const ParameterRun& run) {
    std::vector<std::span<const T>> gradients;
    for (const std::size_t i : run) gradients.push_back(parameters[i].grad().view<T>());
    total += kernels::sum_of_squares<T>(gradients);
  });
  const double norm = std::sqrt(total);
  check(std::isfinite(norm), "{}: the norm of the gradient is {}, the parameters stay as they were",
        optimizer, norm);
  return norm;
}

}  // namespace tilegrad::nn
