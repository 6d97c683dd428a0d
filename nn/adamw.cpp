#include "tilegrad/nn/adamw.h"

#include "tilegrad/kernels/adamw.h"
#include "tilegrad/nn/clipping.h"

namespace tilegrad::nn {

AdamW::AdamW(std::vector<NamedParameter> parameters, const Config& config)
    : parameters_(std::move(parameters)), config_(config) {
  const memory::CategoryScope scope(memory::Category::optimizer);
  for (const NamedParameter& p : parameters_) {
    const Tensor& value = p.parameter->value();
    moments_.push_back(
        {.m = Tensor::zeros(value.shape(), value.dtype()), .v = Tensor::zeros(value.shape(), value.dtype())});
  }
}

double AdamW::step(double lr) {
  const double norm = gradient_norm("AdamW", parameters_);
  ++steps_;
  kernels::AdamWStep settings = {.lr = lr,
                                 .beta1 = config_.beta1,
                                 .beta2 = config_.beta2,
                                 .eps = config_.eps,
                                 .weight_decay = 0,
                                 .step = steps_,
                                 .grad_scale = clip_factor(norm, config_.clip)};
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    Parameter& p = *parameters_[i].parameter;
    if (!p.grad().defined()) continue;
    settings.weight_decay = p.value().rank() >= 2 ? config_.weight_decay : 0.0;
    with_float_type("AdamW", p.value().dtype(), [&]<class T>() {
      kernels::adamw<T>(p.value().mut<T>(), moments_[i].m.mut<T>(), moments_[i].v.mut<T>(),
                        p.grad().view<T>(), settings);
    });
  }
  return norm;
}

std::vector<AdamW::NamedState> AdamW::state() {
  std::vector<NamedState> out;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    out.push_back({parameters_[i].name + ".m", &moments_[i].m});
    out.push_back({parameters_[i].name + ".v", &moments_[i].v});
  }
  return out;
}

}  // namespace tilegrad::nn
