#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "autograd/gradcheck.h"
#include "autograd/ops.h"
#include "autograd/tape.h"

using namespace tilegrad;

namespace {

constexpr Index kBatch = 2, kHeads = 4, kKvHeads = 2, kTq = 5, kTk = 6;

Tensor random(const Shape& shape, std::uint64_t seed) {
  return Tensor::normal(shape, Dtype::f64, RandomKey{seed});
}

// One option, or several together.
struct Feature {
  std::string name;
  AttentionOptions options = {};
  AttentionExtras extras = {};
  bool bias = false;   // a bias of its own, as an input of the check
  bool sinks = false;  // sinks of their own
};

Tensor some_mask() {
  Tensor mask = Tensor::empty({kBatch, 1, kTq, kTk}, Dtype::u8);
  RandomStream random_bits(RandomKey{9});
  for (auto& seen : mask.mut<std::uint8_t>()) seen = random_bits.uniform() < 0.6;
  return mask;
}

std::vector<Feature> features() {
  return {{.name = "causal", .options = {.causal = true}},
          {.name = "top left", .options = {.causal = true, .align = Align::top_left}},
          {.name = "window", .options = {.window = {.left = 1, .right = 2}}},
          {.name = "softcap", .options = {.softcap = 1.5}},
          {.name = "dropout", .options = {.dropout = 0.3, .dropout_key = RandomKey{4}}},
          {.name = "lengths", .extras = {.k_lengths = Tensor::from<std::int32_t>({kBatch}, {4, 6})}},
          {.name = "mask", .extras = {.mask = some_mask()}},
          {.name = "alibi", .extras = {.alibi = Tensor::from<double>({kHeads}, {0.5, 0.25, 0.125, 0.0625})}},
          {.name = "bias", .bias = true},
          {.name = "sinks", .sinks = true}};
}

Feature both(const Feature& a, const Feature& b) {
  Feature c = a;
  c.name += " + " + b.name;
  c.options.causal |= b.options.causal;
  if (b.options.align != Align::bottom_right) c.options.align = b.options.align;
  if (b.options.window.left) c.options.window = b.options.window;
  if (c.options.causal) c.options.window.right.reset();
  if (b.options.softcap) c.options.softcap = b.options.softcap;
  if (b.options.dropout > 0) {
    c.options.dropout = b.options.dropout;
    c.options.dropout_key = b.options.dropout_key;
  }
  if (b.extras.k_lengths.defined()) c.extras.k_lengths = b.extras.k_lengths;
  if (b.extras.mask.defined()) c.extras.mask = b.extras.mask;
  if (b.extras.alibi.defined()) c.extras.alibi = b.extras.alibi;
  c.bias |= b.bias;
  c.sinks |= b.sinks;
  return c;
}

std::vector<Feature> features_and_pairs() {
  const auto single = features();
  std::vector<Feature> all = single;
  for (std::size_t i = 0; i < single.size(); ++i) {
    for (std::size_t j = i + 1; j < single.size(); ++j) all.push_back(both(single[i], single[j]));
  }
  return all;
}

// q, k, v, and a bias and sinks if the feature has them.
std::vector<Tensor> inputs_of(const Feature& feature) {
  std::vector<Tensor> inputs = {random({kBatch, kTq, kHeads, 3}, 1), random({kBatch, kTk, kKvHeads, 3}, 2),
                                random({kBatch, kTk, kKvHeads, 2}, 3)};
  if (feature.bias) inputs.push_back(random({1, kHeads, kTq, kTk}, 4));
  if (feature.sinks) inputs.push_back(random({kHeads}, 5));
  return inputs;
}

AttentionResult apply(const Feature& feature, AttentionKernel kernel, std::span<const Var> in) {
  AttentionExtras extras = feature.extras;
  std::size_t next = 3;
  if (feature.bias) extras.bias = in[next++];
  if (feature.sinks) extras.sinks = in[next++];
  AttentionOptions options = feature.options;
  options.tiles = {2, 2};
  return attention_with_lse(in[0], in[1], in[2], kernel, options, extras);
}

// Both results in one vector, so that one cotangent reaches both. Rows that see nothing have an infinite lse,
// which no finite difference can use; they are left out.
Var flatten(const AttentionResult& result) {
  const Var out = reshape(result.out, {result.out.value().size()});
  for (Index i = 0; i < result.lse.value().size(); ++i) {
    if (!std::isfinite(result.lse.value().at(i))) return out;
  }
  return concat(std::vector<Var>{out, reshape(result.lse, {result.lse.value().size()})}, 0);
}

}  // namespace

TEST_CASE("attention: every option and every pair of options matches finite differences, lse included") {
  for (const AttentionKernel kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    for (const Feature& feature : features_and_pairs()) {
      const auto result =
          gradcheck([&](auto in) { return flatten(apply(feature, kernel, in)); }, inputs_of(feature));
      CAPTURE(feature.name);
      CAPTURE(result.worst);
      CHECK(result.passed);
    }
  }
}

TEST_CASE("attention: naive and flash agree for every option and every pair of options") {
  for (const Feature& feature : features_and_pairs()) {
    CAPTURE(feature.name);
    const auto inputs = inputs_of(feature);
    const std::vector<Var> in(inputs.begin(), inputs.end());
    const auto a = apply(feature, AttentionKernel::naive, in), b = apply(feature, AttentionKernel::flash, in);
    for (Index i = 0; i < a.out.value().size(); ++i) {
      REQUIRE(std::abs(a.out.value().at(i) - b.out.value().at(i)) <= 1e-12);
    }
    for (Index i = 0; i < a.lse.value().size(); ++i) {
      const double x = a.lse.value().at(i), y = b.lse.value().at(i);
      REQUIRE((x == y || std::abs(x - y) <= 1e-12));
    }
  }
}

TEST_CASE("attention: packed sequences equal each sequence on its own") {
  const Tensor cu_q = Tensor::from<std::int32_t>({4}, {0, 2, 2, 5}),
               cu_k = Tensor::from<std::int32_t>({4}, {0, 3, 4, 8});
  const Tensor q = random({1, 5, kHeads, 3}, 1), k = random({1, 8, kKvHeads, 3}, 2),
               v = random({1, 8, kKvHeads, 2}, 3);
  for (const AttentionKernel kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    const AttentionOptions options = {.causal = true, .window = {.left = 2}, .tiles = {2, 2}};
    const Tensor packed = attention(q, k, v, kernel, options, {.cu_q = cu_q, .cu_k = cu_k}).value();
    for (int n = 0; n < 3; ++n) {
      const auto at = [n](const Tensor& cu) {
        return std::pair(static_cast<Index>(cu.at(n)), static_cast<Index>(cu.at(n + 1)));
      };
      const auto queries = at(cu_q), keys = at(cu_k);
      if (queries.first == queries.second) continue;
      const Tensor own =
          attention(slice(q, 1, queries.first, queries.second), slice(k, 1, keys.first, keys.second),
                    slice(v, 1, keys.first, keys.second), kernel, options)
              .value();
      const Tensor part = slice(packed, 1, queries.first, queries.second).value();
      for (Index i = 0; i < own.size(); ++i) REQUIRE(std::abs(own.at(i) - part.at(i)) <= 1e-12);
    }
  }
}

TEST_CASE("attention: options that contradict each other are an error that says why") {
  const Var q = random({1, 3, 2, 4}, 1), k = random({1, 3, 2, 4}, 2), q2 = random({2, 3, 2, 4}, 1);
  const auto run = [&](const AttentionOptions& options, const AttentionExtras& extras = {}) {
    return attention(q, k, k, AttentionKernel::flash, options, extras);
  };
  const Tensor cu = Tensor::from<std::int32_t>({2}, {0, 3});
  CHECK_THROWS_WITH_AS(run({.softcap = -1.0}), "attention: softcap is -1, must be positive", Error);
  CHECK_THROWS_WITH_AS(
      run({.window = {.left = -1}}),
      "attention: the window reaches -1 to the left and 0 to the right, neither may be negative", Error);
  CHECK_THROWS_WITH_AS(run({.causal = true, .window = {.right = 2}}),
                       "attention: causal sees nothing to the right, the window reaches 2", Error);
  CHECK_THROWS_WITH_AS(run({}, {.bias = random({1, 1, 3, 4}, 3)}),
                       "attention: bias is (1, 1, 3, 4), not (1 or 1, 1 or 2, 3, 3)", Error);
  CHECK_THROWS_WITH_AS(run({}, {.mask = random({1, 1, 3, 3}, 3)}), "attention: mask is f64, not u8", Error);
  CHECK_THROWS_WITH_AS(run({}, {.sinks = random({3}, 3)}), "attention: sinks is f64 (3), not f64 (2)", Error);
  CHECK_THROWS_WITH_AS(run({}, {.k_lengths = Tensor::from<std::int32_t>({1}, {4})}),
                       "attention: a key length is 4, not in [0, 3]", Error);
  CHECK_THROWS_WITH_AS(run({}, {.cu_q = cu}), "attention: cu_q and cu_k go together, cu_k is missing", Error);
  CHECK_THROWS_WITH_AS(run({}, {.cu_q = cu, .cu_k = Tensor::from<std::int32_t>({2}, {0, 2})}),
                       "attention: cu_k runs from 0 to 2, not from 0 to 3", Error);
  CHECK_THROWS_WITH_AS(attention(q2, q2, q2, AttentionKernel::flash, {}, {.cu_q = cu, .cu_k = cu}),
                       "attention: packed sequences have batch 1, not 2", Error);
}
