#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "tests/message_of.h"
#include "tests/nn/tiny.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/nn/attention.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

constexpr Index kWidth = 16, kHeads = 4, kTime = 9;

nn::Attention make_layer(const nn::AttentionConfig& config) {
  nn::Attention layer(config, kWidth, true, 0.1, 0.5, 0.5, Dtype::f64, RandomKey{3});
  if (config.sinks) layer.sinks.value() = Tensor::from<double>({kHeads}, {0.5, -1.0, 2.0, 0.0});
  return layer;
}

// Every option that a model may give its attention, and both kernels.
std::vector<nn::AttentionConfig> configurations() {
  std::vector<nn::AttentionConfig> all;
  for (const AttentionKernel kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    all.push_back({.heads = kHeads, .kv_heads = 4, .kernel = kernel});
    all.push_back(
        {.heads = kHeads, .kv_heads = 2, .kernel = kernel, .positions = nn::PositionEncoding::rope});
    all.push_back({.heads = kHeads,
                   .kv_heads = 1,
                   .kernel = kernel,
                   .positions = nn::PositionEncoding::alibi,
                   .window = 3,
                   .softcap = 2.0,
                   .sinks = true});
  }
  return all;
}

// out_t = Σ_s p(t, s) v_s of every head, through the layer's last product.
Tensor weighted_values(const nn::Attention& layer, const Var& x, const Tensor& p) {
  const Tensor v = layer.value(x).value();
  const Index size = kWidth / kHeads, group = kHeads / layer.config.kv_heads, batch = x.dim(0);
  Tensor out = Tensor::zeros({batch, kTime, kWidth}, Dtype::f64);
  const auto sums = out.mut<double>();
  for (Index b = 0; b < batch; ++b)
    for (Index h = 0; h < kHeads; ++h)
      for (Index t = 0; t < kTime; ++t)
        for (Index s = 0; s < kTime; ++s)
          for (Index c = 0; c < size; ++c)
            sums[(b * kTime + t) * kWidth + h * size + c] +=
                p.at({b, h, t, s}) * v.at({b, s, h / group * size + c});
  return layer.output(Var(out)).value();
}

}  // namespace

TEST_CASE(
    "attention probabilities: times the values they are what the layer returns, with every option and "
    "kernel") {
  const Tape::Pause no_gradients;
  const Var x = Tensor::normal({2, kTime, kWidth}, Dtype::f64, RandomKey{4});
  for (const nn::AttentionConfig& config : configurations()) {
    CAPTURE(config.kv_heads);
    const nn::Attention layer = make_layer(config);
    const Tensor p = layer.probabilities(x).p;
    CHECK(p.shape() == Shape{2, kHeads, kTime, kTime});
    CHECK(distance(weighted_values(layer, x, p), layer(x, {}).value()) < 1e-13);
  }
}

TEST_CASE("attention probabilities: rows sum to 1 less the sink's share, and masked keys have 0") {
  const Tape::Pause no_gradients;
  const Var x = Tensor::normal({2, kTime, kWidth}, Dtype::f64, RandomKey{4});
  for (const nn::AttentionConfig& config : configurations()) {
    CAPTURE(config.kv_heads);
    const nn::Attention layer = make_layer(config);
    const auto [p, lse] = layer.probabilities(x);
    for (Index row = 0; row < lse.size(); ++row) {
      const Index h = row / kTime % kHeads, t = row % kTime;
      double sum = 0;
      for (Index s = 0; s < kTime; ++s) {
        const double share = p.at(row * kTime + s);
        const bool masked = s > t || (config.window && s < t - *config.window);
        CHECK((share == 0) == masked);
        sum += share;
      }
      const double sink = config.sinks ? std::exp(layer.sinks.value().at(h) - lse.at(row)) : 0;
      CHECK(sum == doctest::Approx(1 - sink).epsilon(1e-12));
      CHECK((sink > 0) == config.sinks);
    }
  }
}

TEST_CASE("attention probabilities: have no gradient, and say so") {
  const nn::Attention layer = make_layer({.heads = kHeads, .kv_heads = kHeads});
  const Var x = Tensor::normal({1, kTime, kWidth}, Dtype::f64, RandomKey{4});
  Tape tape;
  CHECK(message_of([&] { layer.probabilities(x); }) ==
        "attention probabilities: has no backward, but its input (1, 9, 4, 4) is on a gradient path; pass "
        "input.detach() if that is meant");
}

TEST_CASE("attention probabilities: the op also takes what no model has, and drops nothing") {
  const Tape::Pause no_gradients;
  const Index queries = 5, size = 4;
  const Var q = Tensor::normal({2, queries, kHeads, size}, Dtype::f64, RandomKey{5});
  const Var k = Tensor::normal({2, kTime, 2, size}, Dtype::f64, RandomKey{6});
  const Var v = Tensor::normal({2, kTime, 2, size}, Dtype::f64, RandomKey{7});
  AttentionExtras extras = {.bias = Tensor::normal({1, kHeads, queries, kTime}, Dtype::f64, RandomKey{8}),
                            .k_lengths = Tensor::from<std::int32_t>({2}, {kTime, 6})};
  AttentionOptions options = {.causal = true, .scale = 0.7};
  const auto [p, lse] = attention_probabilities(q, k, options, extras);
  const AttentionResult y = attention_with_lse(q, k, v, AttentionKernel::naive, options, extras);
  CHECK(distance(lse, y.lse.value()) == 0);
  for (Index row = 0; row < 2 * queries * kHeads; ++row) {
    const Index b = row / (queries * kHeads), i = row / kHeads % queries, h = row % kHeads;
    for (Index c = 0; c < size; ++c) {
      double sum = 0;
      for (Index s = 0; s < kTime; ++s) sum += p.at({b, h, i, s}) * v.value().at({b, s, h / 2, c});
      CHECK(std::abs(sum - y.out.value().at({b, i, h, c})) < 1e-13);
    }
  }
  options.dropout = 0.5;
  options.dropout_key = RandomKey{9};
  CHECK(distance(p, attention_probabilities(q, k, options, extras).p) == 0);
}

TEST_CASE("attention probabilities: keys alone on a gradient path are noticed, too") {
  const Tensor x = Tensor::normal({1, kTime, 2, 4}, Dtype::f64, RandomKey{4});
  Tape tape;
  CHECK(
      message_of([&] { attention_probabilities(x, Var::leaf(x)); })
          .starts_with(
              "attention probabilities: has no backward, but its input (1, 9, 2, 4) is on a gradient path"));
}
