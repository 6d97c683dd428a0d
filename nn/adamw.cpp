#include "tilegrad/nn/adamw.h"

#include <cmath>

#include "tilegrad/kernels/adamw.h"
#include "tilegrad/kernels/elementwise.h"

namespace tilegrad::nn {

AdamW::AdamW(const std::vector<NamedParameter>& parameters, const Config& config) : config_(config) {
  const memory::CategoryScope scope(memory::Category::optimizer);
  for (const NamedParameter& p : parameters) {
    const Tensor& value = p.parameter->value();
    slots_.push_back({.name = p.name,
                      .parameter = p.parameter->share(),
                      .m = Tensor::zeros(value.shape(), value.dtype()),
                      .v = Tensor::zeros(value.shape(), value.dtype())});
  }
}

double AdamW::global_norm() const {
  double total = 0;
  for (const Slot& slot : slots_) {
    const Tensor& grad = slot.parameter.grad();
    if (!grad.defined()) continue;
    total += with_float_type("AdamW", grad.dtype(),
                             [&]<class T>() { return kernels::sum_of_squares<T>(grad.view<T>()); });
  }
  return std::sqrt(total);
}

double AdamW::step(double lr) {
  const double norm = global_norm();
  check(std::isfinite(norm), "AdamW: the norm of the gradient is {}, the parameters stay as they were", norm);
  ++steps_;
  kernels::AdamWStep settings = {
      .lr = lr,
      .beta1 = config_.beta1,
      .beta2 = config_.beta2,
      .eps = config_.eps,
      .weight_decay = 0,
      .step = steps_,
      .grad_scale = config_.clip > 0 && norm > config_.clip ? config_.clip / norm : 1.0};
  for (auto& [name, p, m, v] : slots_) {
    if (!p.grad().defined()) continue;
    settings.weight_decay = p.value().rank() >= 2 ? config_.weight_decay : 0.0;
    with_float_type("AdamW", p.value().dtype(), [&]<class T>() {
      kernels::adamw<T>(p.value().mut<T>(), m.mut<T>(), v.mut<T>(), p.grad().view<T>(), settings);
    });
  }
  return norm;
}

std::vector<AdamW::NamedState> AdamW::state() {
  std::vector<NamedState> out;
  for (Slot& slot : slots_) {
    out.push_back({slot.name + ".m", &slot.m});
    out.push_back({slot.name + ".v", &slot.v});
  }
  return out;
}

}  // namespace tilegrad::nn
