#include "tilegrad/nn/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tilegrad/autograd/tape.h"

namespace tilegrad::nn {

namespace {

// Draws from softmax(logits / temperature) over the top_k likeliest tokens, or takes the likeliest.
std::int32_t choose(std::span<const double> logits, const SamplingOptions& options, RandomStream& random) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  // Equal logits keep their order, so that the choice is the same everywhere.
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return logits[a] > logits[b]; });
  if (options.temperature == 0) return order[0];
  const std::size_t k =
      options.top_k > 0 ? std::min(order.size(), static_cast<std::size_t>(options.top_k)) : order.size();
  const double largest = logits[order[0]];
  std::vector<double> weights;
  for (std::size_t i = 0; i < k; ++i) {
    weights.push_back(std::exp((logits[order[i]] - largest) / options.temperature));
  }
  double rest = random.uniform() * std::accumulate(weights.begin(), weights.end(), 0.0);
  for (std::size_t i = 0; i < k; ++i) {
    rest -= weights[i];
    if (rest < 0) return order[i];
  }
  return order[k - 1];
}

// Runs tokens through the model and returns the logits after the last one.
std::vector<double> next_logits(const Transformer& model, std::span<const std::int32_t> tokens,
                                std::vector<KvCache>& caches) {
  const Tensor ids = Tensor::from<std::int32_t>({1, std::ssize(tokens)}, tokens);
  const Tensor logits = model(ids, caches).value();
  const Index vocabulary = logits.dim(2), first = logits.size() - vocabulary;
  std::vector<double> last(vocabulary);
  for (Index i = 0; i < vocabulary; ++i) {
    const double logit = logits.at(first + i);
    check(!std::isnan(logit), "generate: the logit of token {} is NaN", i);
    last[i] = logit;
  }
  return last;
}

}  // namespace

std::vector<std::int32_t> generate(const Transformer& model, std::span<const std::int32_t> prompt,
                                   Index count, const SamplingOptions& options,
                                   const std::function<bool(std::int32_t)>& on_token) {
  check(!prompt.empty(), "generate: the prompt is empty");
  check(options.temperature >= 0, "generate: temperature is {}, must not be negative", options.temperature);
  check(options.top_k >= 0, "generate: top_k is {}, must not be negative", options.top_k);
  const Tape::Pause no_gradients;
  const Index context = model.config.context;
  std::vector<std::int32_t> tokens(prompt.begin(), prompt.end());
  std::vector<KvCache> caches = model.make_caches();
  Index cached = std::max<Index>(0, std::ssize(tokens) - context);  // tokens before that are out of sight
  RandomStream random(options.key);
  std::vector<std::int32_t> generated;
  while (std::ssize(generated) < count) {
    if (caches[0].length + std::ssize(tokens) - cached > context) {
      // The context is full: continue with its last half.
      caches = model.make_caches();
      cached = std::ssize(tokens) - std::max<Index>(1, context / 2);
    }
    const auto fresh = std::span<const std::int32_t>(tokens).subspan(cached);
    const std::int32_t token = choose(next_logits(model, fresh, caches), options, random);
    cached = std::ssize(tokens);
    tokens.push_back(token);
    generated.push_back(token);
    if (on_token && !on_token(token)) break;
  }
  return generated;
}

}  // namespace tilegrad::nn
