#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "tilegrad/nn/module.h"

/// What optimisers have in common: the parameters they update, and what they do with all gradients together
/// before that.
namespace tilegrad::nn {

/// Handles to the same parameters, which stay valid when their model is moved or destroyed.
std::vector<Parameter> share(const std::vector<NamedParameter>& parameters);

/// The numbers of the parameters that have a gradient, in order and in runs of one element type: what one call of a kernel
/// updates, in one job for the threads.
using ParameterRun = std::vector<std::size_t>;
std::vector<ParameterRun> runs_with_gradient(std::span<const Parameter> parameters);

/// Calls f.operator()<T>(run) for each of them, with its element type. Throws in the name of `optimizer` for a type that
/// does not compute.
template <class F>
void for_each_run(std::string_view optimizer, std::span<const Parameter> parameters, F&& f) {
  for (const ParameterRun& run : runs_with_gradient(parameters)) {
    with_float_type(optimizer, parameters[run[0]].grad().dtype(),
                    [&]<class T>() { f.template operator()<T>(run); });
  }
}

/// Weight decay is for matrices: vectors (biases and the weights of norms) have none.
inline double decay_of(const Parameter& parameter, double weight_decay) {
  return parameter.value().rank() >= 2 ? weight_decay : 0.0;
}

/// √ Σ g² over the gradients of all parameters, summed in double. Throws in the name of `optimizer` if it is
/// not finite.
double gradient_norm(std::string_view optimizer, std::span<const Parameter> parameters);

/// The factor that brings a gradient of that norm down to `largest`; 1 if it is no larger, or `largest` is 0.
inline double clip_factor(double norm, double largest) {
  return largest > 0 && norm > largest ? largest / norm : 1.0;
}

}  // namespace tilegrad::nn
