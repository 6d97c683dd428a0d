#include "tilegrad/nn/layers.h"

#include <span>
#include <vector>

#include "tilegrad/autograd/checkpoint.h"

namespace tilegrad::nn {

namespace {

Parameter normal(const Shape& shape, double std, Dtype dtype, RandomKey key) {
  const memory::CategoryScope scope(memory::Category::parameters);
  return Parameter(Tensor::normal(shape, dtype, key, std));
}

Parameter constant(const Shape& shape, double value, Dtype dtype) {
  const memory::CategoryScope scope(memory::Category::parameters);
  return Parameter(Tensor::full(shape, dtype, value));
}

Var activate(MlpKind kind, std::span<const Var> xs) {
  switch (kind) {
    case MlpKind::relu:
      return relu(xs[0]);
    case MlpKind::swiglu:
      return swiglu(xs[0], xs[1]);
    case MlpKind::gelu:
      break;
  }
  return gelu(xs[0]);
}

}  // namespace

Linear::Linear(Index in, Index out, bool with_bias, double std, Dtype dtype, RandomKey key)
    : weight(normal({out, in}, std, dtype, key)) {
  if (with_bias) bias = constant({out}, 0, dtype);
}

Var Linear::operator()(const Var& x) const {
  return bias.defined() ? linear(x, weight, bias) : linear(x, weight);
}

Embedding::Embedding(Index vocabulary, Index width, double std, Dtype dtype, RandomKey key)
    : weight(normal({vocabulary, width}, std, dtype, key)) {}

Var Embedding::operator()(const Tensor& ids) const { return embedding(weight, ids); }

Norm::Norm(NormKind norm_kind, Index width, Dtype dtype)
    : kind(norm_kind), weight(constant({width}, 1, dtype)) {
  if (kind == NormKind::layernorm) bias = constant({width}, 0, dtype);
}

Var Norm::operator()(const Var& x, SavePolicy save) const {
  const auto norm = [this](const Var& in) {
    return kind == NormKind::layernorm ? layernorm(in, weight, bias) : rmsnorm(in, weight);
  };
  return save == SavePolicy::output ? norm(x) : recomputed(norm, x);
}

Mlp::Mlp(MlpKind mlp_kind, Index width, Index hidden, bool bias, double std, double std_residual, Dtype dtype,
         RandomKey key)
    : kind(mlp_kind),
      up(width, hidden, bias, std, dtype, key.fold(0)),
      down(hidden, width, bias, std_residual, dtype, key.fold(1)) {
  if (kind == MlpKind::swiglu) gate = Linear(width, hidden, bias, std, dtype, key.fold(2));
}

Var Mlp::operator()(const Var& x, SavePolicy save) const {
  std::vector<Var> in;
  if (kind == MlpKind::swiglu) in.push_back(gate(x));
  in.push_back(up(x));
  const auto act = [activation = kind](std::span<const Var> xs) { return activate(activation, xs); };
  return down(save == SavePolicy::output ? act(in) : recomputed(act, in));
}

}  // namespace tilegrad::nn
