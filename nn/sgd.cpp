#include "tilegrad/nn/sgd.h"

#include "tilegrad/kernels/sgd.h"
#include "tilegrad/nn/clipping.h"

namespace tilegrad::nn {

Sgd::Sgd(const std::vector<NamedParameter>& parameters, const Config& config)
    : parameters_(share(parameters)), config_(config) {
  check(config.momentum >= 0 && config.momentum < 1, "Sgd: momentum is {}, not in [0, 1)", config.momentum);
  check(config.momentum > 0 || !config.nesterov, "Sgd: nesterov without momentum");
  if (config.momentum == 0) return;
  const memory::CategoryScope scope(memory::Category::optimizer);
  for (const NamedParameter& p : parameters) {
    const Tensor& value = p.parameter->value();
    velocities_.push_back({.name = p.name, .v = Tensor::zeros(value.shape(), value.dtype())});
  }
}

double Sgd::step(double lr) {
  const double norm = gradient_norm("Sgd", parameters_);
  ++steps_;
  const kernels::SgdStep settings = {.lr = lr,
                                     .momentum = config_.momentum,
                                     .nesterov = config_.nesterov,
                                     .grad_scale = clip_factor(norm, config_.clip)};
  for (const auto& run : runs_with_gradient(parameters_)) {
    with_float_type("Sgd", parameters_[run[0]].value().dtype(), [&]<class T>() {
      std::vector<kernels::SgdTensor<T>> tensors;
      for (const std::size_t i : run) {
        Tensor& w = parameters_[i].value();
        tensors.push_back({.w = w.mut<T>(),
                           .v = velocities_.empty() ? std::span<T>() : velocities_[i].v.mut<T>(),
                           .grad = parameters_[i].grad().view<T>(),
                           .weight_decay = w.rank() >= 2 ? config_.weight_decay : 0.0});
      }
      kernels::sgd<T>(tensors, settings);
    });
  }
  return norm;
}

std::vector<Sgd::NamedState> Sgd::state() {
  std::vector<NamedState> out;
  for (Velocity& velocity : velocities_) out.push_back({velocity.name + ".velocity", &velocity.v});
  return out;
}

}  // namespace tilegrad::nn
