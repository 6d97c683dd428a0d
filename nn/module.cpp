#include "tilegrad/nn/module.h"

namespace tilegrad::nn {

Index count(const std::vector<NamedParameter>& parameters) {
  Index total = 0;
  for (const NamedParameter& p : parameters) total += p.parameter->value().size();
  return total;
}

void zero_grad(const std::vector<NamedParameter>& parameters) {
  for (const NamedParameter& p : parameters) p.parameter->zero_grad();
}

}  // namespace tilegrad::nn
