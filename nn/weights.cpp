#include "tilegrad/nn/weights.h"

#include <algorithm>

#include "tilegrad/kernels/elementwise.h"

namespace tilegrad::nn {

void copy_elements(Tensor& to, const Tensor& from) {
  with_float_type("copy_elements", to.dtype(), [&]<class T>() {
    const auto source = from.view<T>();
    std::copy(source.begin(), source.end(), to.mut<T>().begin());
  });
}

bool all_finite(const std::vector<NamedParameter>& parameters) {
  return std::all_of(parameters.begin(), parameters.end(), [](const NamedParameter& p) {
    const Tensor& value = p.parameter->value();
    return with_float_type("all_finite", value.dtype(),
                           [&]<class T>() { return kernels::all_finite<T>(value.view<T>()); });
  });
}

void store_parameters(Safetensors& content, const std::vector<NamedParameter>& parameters) {
  for (const NamedParameter& p : parameters) content.tensors[p.name] = p.parameter->value();
}

void load_parameters(const Safetensors& content, const std::vector<NamedParameter>& parameters) {
  // All are checked before the first is changed.
  for (const NamedParameter& p : parameters) {
    content.at(p.name, p.parameter->value().shape(), p.parameter->value().dtype());
  }
  for (const auto& [name, tensor] : content.tensors) {
    const bool known = std::any_of(parameters.begin(), parameters.end(),
                                   [&n = name](const NamedParameter& p) { return p.name == n; });
    check(known, "tensor `{}` {} is not one of the model's {} parameters", name, tensor.shape(),
          parameters.size());
  }
  for (const NamedParameter& p : parameters) {
    copy_elements(p.parameter->value(), content.tensors.at(p.name));
  }
}

}  // namespace tilegrad::nn
