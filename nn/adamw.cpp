#include "tilegrad/nn/adamw.h"

#include "tilegrad/kernels/adamw.h"
#include "tilegrad/nn/clipping.h"

namespace tilegrad::nn {

AdamW::AdamW(const std::vector<NamedParameter>& parameters, const Config& config)
    : parameters_(share(parameters)), config_(config) {
  const memory::CategoryScope scope(memory::Category::optimizer);
  for (const NamedParameter& p : parameters) {
    const Tensor& value = p.parameter->value();
    moments_.push_back({.name = p.name,
                        .m = Tensor::zeros(value.shape(), value.dtype()),
                        .v = Tensor::zeros(value.shape(), value.dtype())});
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
    Parameter& p = parameters_[i];
    Moments& moments = moments_[i];
    if (!p.grad().defined()) continue;
    settings.weight_decay = p.value().rank() >= 2 ? config_.weight_decay : 0.0;
    with_float_type("AdamW", p.value().dtype(), [&]<class T>() {
      kernels::adamw<T>(p.value().mut<T>(), moments.m.mut<T>(), moments.v.mut<T>(), p.grad().view<T>(),
                        settings);
    });
  }
  return norm;
}

std::vector<AdamW::NamedState> AdamW::state() {
  std::vector<NamedState> out;
  for (Moments& moments : moments_) {
    out.push_back({moments.name + ".m", &moments.m});
    out.push_back({moments.name + ".v", &moments.v});
  }
  return out;
}

}  // namespace tilegrad::nn
