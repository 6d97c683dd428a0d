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
  const kernels::AdamWStep settings = {.lr = lr,
                                       .beta1 = config_.beta1,
                                       .beta2 = config_.beta2,
                                       .eps = config_.eps,
                                       .step = steps_,
                                       .grad_scale = clip_factor(norm, config_.clip)};
  for_each_run("AdamW", parameters_, [&]<class T>(const ParameterRun& run) {
    std::vector<kernels::AdamWTensor<T>> tensors;
    for (const std::size_t i : run) {
      Parameter& p = parameters_[i];
      tensors.push_back({.w = p.value().mut<T>(),
                         .m = moments_[i].m.mut<T>(),
                         .v = moments_[i].v.mut<T>(),
                         .grad = p.grad().view<T>(),
                         .weight_decay = decay_of(p, config_.weight_decay)});
    }
    kernels::adamw<T>(tensors, settings);
  });
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
