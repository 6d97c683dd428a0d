#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <utility>

#include "tests/autograd/attention_composition.h"
#include "tests/tensors.h"
#include "tilegrad/autograd/gradcheck.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

constexpr Index kBatch = 2, kHeads = 4, kKvHeads = 2, kTq = 5, kTk = 6;

// One option, or several together.
struct Feature {
  std::string name;
  AttentionOptions options = {};
  AttentionExtras extras = {};
  bool bias = false;   // a bias of its own, as an input of the check
  bool sinks = false;  // sinks of their own
};

std::vector<Feature> features() {
  return {{.name = "causal", .options = {.causal = true}},
          {.name = "top left", .options = {.causal = true, .align = Align::top_left}},
          {.name = "window", .options = {.window = {.left = 1, .right = 2}}},
          {.name = "softcap", .options = {.softcap = 1.5}},
          {.name = "dropout", .options = {.dropout = 0.3, .dropout_key = RandomKey{4}}},
          {.name = "lengths", .extras = {.k_lengths = integers({4, 6})}},
          {.name = "packed", .extras = {.cu_q = integers({0, 2, 2, 5}), .cu_k = integers({0, 3, 4, 6})}},
          {.name = "mask", .extras = {.mask = random_mask({1, kHeads, kTq, kTk})}},
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
  if (b.extras.cu_q.defined()) {
    c.extras.cu_q = b.extras.cu_q;
    c.extras.cu_k = b.extras.cu_k;
  }
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
    for (std::size_t j = i + 1; j < single.size(); ++j) {
      const Feature pair = both(single[i], single[j]);
      if (pair.extras.cu_q.defined() && pair.extras.k_lengths.defined()) continue;  // a contradiction
      all.push_back(pair);
    }
  }
  return all;
}

// q, k, v, and a bias and sinks if the feature has them.
std::vector<Tensor> inputs_of(const Feature& feature) {
  const Index batch = feature.extras.cu_q.defined() ? 1 : kBatch;
  std::vector<Tensor> inputs = {random({batch, kTq, kHeads, 3}, 1), random({batch, kTk, kKvHeads, 3}, 2),
                                random({batch, kTk, kKvHeads, 2}, 3)};
  if (feature.bias) inputs.push_back(random({1, kHeads, kTq, kTk}, 4));
  if (feature.sinks) inputs.push_back(random({kHeads}, 5));
  return inputs;
}

// The feature's extras, with the bias and sinks of `in`.
AttentionExtras extras_of(const Feature& feature, std::span<const Var> in) {
  AttentionExtras extras = feature.extras;
  std::size_t next = 3;
  if (feature.bias) extras.bias = in[next++];
  if (feature.sinks) extras.sinks = in[next++];
  return extras;
}

AttentionResult apply(const Feature& feature, AttentionKernel kernel, std::span<const Var> in) {
  AttentionOptions options = feature.options;
  options.tiles = {2, 2};
  return attention_with_lse(in[0], in[1], in[2], kernel, options, extras_of(feature, in));
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

// out and the gradients of all inputs for a random dout; where there are sinks, the mean of lse counts as
// well.
template <class F>
std::vector<Tensor> values_and_gradients(const Feature& feature, F&& f) {
  std::vector<Var> in;
  for (const Tensor& x : inputs_of(feature)) in.push_back(Var::leaf(x));
  Tape tape;
  const auto [out, mean_lse] = f(std::span<const Var>(in));
  Var loss = sum(mul(out, random(out.shape(), 99)));
  if (feature.sinks) loss = add(loss, mean_lse);
  tape.backward(loss);
  std::vector<Tensor> all = {out.value(), loss.value()};
  for (const Var& x : in) all.push_back(x.grad());
  return all;
}

}  // namespace

TEST_CASE("attention: every option and every pair of options matches finite differences, lse included" *
          doctest::test_suite("slow")) {
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

TEST_CASE("attention: naive and flash agree for every option and every pair of options" *
          doctest::test_suite("slow")) {
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

TEST_CASE("attention: every option and every pair of options equals the composition of primitive ops" *
          doctest::test_suite("slow")) {
  for (const Feature& feature : features_and_pairs()) {
    const auto plain = values_and_gradients(feature, [&](std::span<const Var> in) {
      const test::AttentionComposition composed(feature.options, extras_of(feature, in), in[0], in[1]);
      return std::pair(composed.out(in[0], in[1], in[2]),
                       feature.sinks ? composed.mean_lse(in[0], in[1]) : Var());
    });
    for (const AttentionKernel kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
      const auto fused = values_and_gradients(feature, [&](std::span<const Var> in) {
        const AttentionResult r = apply(feature, kernel, in);
        return std::pair(r.out, feature.sinks ? mean(r.lse) : Var());
      });
      CAPTURE(feature.name);
      REQUIRE(fused.size() == plain.size());
      for (std::size_t n = 0; n < plain.size(); ++n) {
        CAPTURE(n);
        REQUIRE(fused[n].shape() == plain[n].shape());
        for (Index i = 0; i < plain[n].size(); ++i)
          REQUIRE(std::abs(fused[n].at(i) - plain[n].at(i)) <= 1e-12 * (1 + std::abs(plain[n].at(i))));
      }
    }
  }
}

TEST_CASE("attention: packed sequences equal each sequence on its own") {
  const Tensor cu_q = integers({0, 2, 2, 5}), cu_k = integers({0, 3, 4, 8});
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
