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
  for_each_run("Sgd", parameters_, [&]<class T>(const ParameterRun& run) {
    std::vector<kernels::SgdTensor<T>> tensors;
    for (const std::size_t i : run) {
      Parameter& p = parameters_[i];
      tensors.push_back({.w = p.value().mut<T>(),
                         .v = velocities_.empty() ? std::span<T>() : velocities_[i].v.mut<T>(),
                         .grad = p.grad().view<T>(),
                         .weight_decay = decay_of(p, config_.weight_decay)});
    }
    kernels::sgd<T>(tensors, settings);
  });
  return norm;
}

std::vector<Sgd::NamedState> Sgd::state() {
  std::vector<NamedState> out;
  for (Velocity& velocity : velocities_) out.push_back({velocity.name + ".velocity", &velocity.v});
  return out;
}

}  // namespace tilegrad::nn
