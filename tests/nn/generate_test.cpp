#include "tilegrad/nn/generate.h"

#include <algorithm>
#include <map>

#include "tests/nn/tiny.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

using Tokens = std::vector<std::int32_t>;

const nn::Transformer& model() {
  static const nn::Transformer instance(tiny_model_config(), RandomKey{1});
  return instance;
}

// Logits after the last of `tokens`, by a forward over all of them.
std::vector<double> last_logits(std::span<const std::int32_t> tokens) {
  const Tensor logits = model()(Tensor::from<std::int32_t>({1, std::ssize(tokens)}, tokens), {}).value();
  std::vector<double> last;
  for (Index i = logits.size() - 11; i < logits.size(); ++i) last.push_back(logits.at(i));
  return last;
}

std::int32_t likeliest(std::span<const std::int32_t> tokens) {
  const std::vector<double> logits = last_logits(tokens);
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

TEST_CASE("generate: greedy takes the likeliest token, and a full context goes on with its last half") {
  Tokens all = {1, 2, 3};
  const Tokens generated = nn::generate(model(), all, 20, {});
  REQUIRE(generated.size() == 20);
  std::size_t begin = 0;
  for (const std::int32_t token : generated) {
    if (all.size() - begin > 8) begin = all.size() - 4;
    CHECK(token == likeliest(std::span(all).subspan(begin)));
    all.push_back(token);
  }
}

TEST_CASE("generate: of a prompt longer than the context the last tokens count") {
  const Tokens prompt = {10, 9, 8, 7, 1, 2, 3, 4, 5, 6, 7, 8};
  CHECK(nn::generate(model(), prompt, 1, {})[0] == likeliest(std::span(prompt).last(8)));
}

TEST_CASE("generate: tokens are drawn from the softmax of the logits by temperature") {
  const Tokens prompt = {1, 2, 3};
  const std::vector<double> logits = last_logits(prompt);
  std::vector<double> p;
  double total = 0;
  for (const double logit : logits) total += p.emplace_back(std::exp(logit / 2));
  std::map<std::int32_t, int> drawn;
  constexpr int kDraws = 2000;
  for (std::uint64_t key = 0; key < kDraws; ++key) {
    ++drawn[nn::generate(model(), prompt, 1, {.temperature = 2, .key = {key}})[0]];
  }
  for (std::int32_t token = 0; token < 11; ++token) {
    const double expected = kDraws * p[token] / total;
    CHECK(std::abs(drawn[token] - expected) <= 4 * std::sqrt(expected) + 1);
  }
}

TEST_CASE("generate: top_k draws among the k likeliest") {
  const Tokens prompt = {1, 2, 3};
  std::vector<double> logits = last_logits(prompt);
  const std::vector<double> unsorted = logits;
  std::sort(logits.rbegin(), logits.rend());
  std::map<std::int32_t, int> drawn;
  for (std::uint64_t key = 0; key < 100; ++key) {
    ++drawn[nn::generate(model(), prompt, 1, {.temperature = 5, .top_k = 3, .key = {key}})[0]];
  }
  CHECK(drawn.size() == 3);
  for (const auto& [token, times] : drawn) CHECK(unsorted[token] >= logits[2]);
  CHECK(nn::generate(model(), prompt, 6, {.temperature = 5, .top_k = 1}) ==
        nn::generate(model(), prompt, 6, {}));
}

TEST_CASE("generate: the same key draws the same tokens, another key others") {
  const Tokens prompt = {1};
  const auto draw = [&](std::uint64_t key) {
    return nn::generate(model(), prompt, 12, {.temperature = 1, .key = {key}});
  };
  CHECK(draw(1) == draw(1));
  CHECK(draw(1) != draw(2));
}

TEST_CASE("generate: hands each token over at once, and stops when it is told to") {
  Tokens seen;
  const Tokens generated = nn::generate(model(), Tokens{1}, 10, {}, [&](std::int32_t token) {
    seen.push_back(token);
    return seen.size() < 3;
  });
  CHECK(generated.size() == 3);
  CHECK(seen == generated);
}

TEST_CASE("generate: records nothing on a tape") {
  Tape tape;
  nn::generate(model(), Tokens{1}, 2, {});
  CHECK(tape.size() == 0);
}

TEST_CASE("generate: what cannot be is an error") {
  CHECK(message_of([] { nn::generate(model(), Tokens{}, 1, {}); }) == "generate: the prompt is empty");
  CHECK(message_of([] { nn::generate(model(), Tokens{11}, 1, {}); }) == "embedding: id 11 is not in [0, 11)");
  CHECK(message_of([] { nn::generate(model(), Tokens{1}, 1, {.temperature = -1}); }) ==
        "generate: temperature is -1, must not be negative");
  CHECK(message_of([] { nn::generate(model(), Tokens{1}, 1, {.top_k = -1}); }) ==
        "generate: top_k is -1, must not be negative");
  nn::Transformer broken(tiny_model_config(), RandomKey{1});
  set_all(broken.norm.weight, std::nan(""));
  CHECK(message_of([&] { nn::generate(broken, Tokens{1}, 1, {}); }) ==
        "generate: the logit of token 0 is NaN");
}
