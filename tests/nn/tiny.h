#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/message_of.h"
#include "tests/tensors.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/nn/transformer.h"

/// A transformer that is tiny, but whose weights are large enough that every part of it counts.
namespace tilegrad::test {

inline nn::TransformerConfig tiny_model_config() {
  return {.vocabulary = 11,
          .context = 8,
          .layers = 2,
          .width = 16,
          .attention = {.heads = 4, .kv_heads = 2},
          .init = {.embedding = 0.5, .linear = 0.3},
          .dtype = Dtype::f64};
}

/// Random ids below `vocabulary`, i32 (B, T).
inline Tensor random_tokens(Index batch, Index time, Index vocabulary, std::uint64_t seed = 5) {
  RandomStream stream(RandomKey{seed});
  std::vector<std::int32_t> ids(batch * time);
  for (auto& id : ids) id = static_cast<std::int32_t>(stream.below(static_cast<std::uint64_t>(vocabulary)));
  return Tensor::from<std::int32_t>({batch, time}, ids);
}

struct Run {
  double loss = 0;
  std::vector<Tensor> grads;
};

/// Loss and all gradients of one batch of next-token prediction; the model's gradients are cleared.
inline Run run(nn::Transformer& model, const Tensor& ids, const nn::ForwardOptions& mode) {
  Run result;
  {
    Tape tape;
    const Tensor targets = random_tokens(ids.dim(0), ids.dim(1), model.config.vocabulary, 6);
    const Var loss = model.loss(ids, targets, mode);
    tape.backward(loss);
    result.loss = loss.value().item();
  }
  for (const nn::NamedParameter& p : nn::parameters(model)) result.grads.push_back(p.parameter->grad());
  nn::zero_grad(nn::parameters(model));
  return result;
}

inline void check_same_bits(const Run& a, const Run& b) {
  CHECK(a.loss == b.loss);
  REQUIRE(a.grads.size() == b.grads.size());
  for (std::size_t i = 0; i < a.grads.size(); ++i) {
    CAPTURE(i);
    CHECK(distance(a.grads[i], b.grads[i]) == 0);
  }
}

/// L'(w_i) ≈ (8 (L(w+h) − L(w−h)) − (L(w+2h) − L(w−2h))) / 12h, for element i of a parameter.
inline double numeric_derivative(Parameter& p, Index i, const std::function<double()>& loss) {
  constexpr double h = 1e-3;
  double& w = p.value().mut<double>()[i];
  const double start = w;
  const auto at = [&](double steps) {
    w = start + steps * h;
    return loss();
  };
  const double derivative = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h);
  w = start;
  return derivative;
}

inline void set_all(Parameter& p, double value) {
  auto elements = p.value().mut<double>();
  std::fill(elements.begin(), elements.end(), value);
}

}  // namespace tilegrad::test
