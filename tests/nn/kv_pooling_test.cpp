#include "tilegrad/nn/kv_pooling.h"

#include "tests/nn/tiny.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

nn::Transformer make(Index kv_heads, Index heads = 4) {
  nn::TransformerConfig config = tiny_model_config();
  config.attention.heads = heads;
  config.attention.kv_heads = kv_heads;
  config.bias = true;
  return {config, RandomKey{static_cast<std::uint64_t>(kv_heads)}};
}

}  // namespace

TEST_CASE("pool_kv_heads: a head becomes the mean of those that it replaces, all else is copied") {
  nn::Transformer from = make(4), to = make(2);
  set_all(from.blocks[0].attention.key.bias, 3);
  nn::pool_kv_heads(to, from);
  const Tensor& source = from.blocks[1].attention.value.weight.value();  // (4 heads x 4, 16)
  const Tensor& pooled = to.blocks[1].attention.value.weight.value();    // (2 heads x 4, 16)
  for (Index head = 0; head < 2; ++head) {
    for (Index i = 0; i < 64; ++i) {
      const double mean = (source.at(2 * head * 64 + i) + source.at((2 * head + 1) * 64 + i)) / 2;
      CHECK(pooled.at(head * 64 + i) == mean);
    }
  }
  CHECK(to.blocks[0].attention.key.bias.value().at(7) == 3);
  CHECK(distance(to.token_embedding.weight.value(), from.token_embedding.weight.value()) == 0);
  CHECK(distance(to.blocks[1].mlp.down.weight.value(), from.blocks[1].mlp.down.weight.value()) == 0);
  CHECK(!to.token_embedding.weight.value().shares_storage_with(from.token_embedding.weight.value()));
}

TEST_CASE("pool_kv_heads: heads that are equal within their group can be pooled without a change") {
  for (const Index kv_heads : {2, 1}) {
    nn::Transformer full = make(4), pooled = make(kv_heads);
    const Index group = 4 / kv_heads;
    for (nn::Block& block : full.blocks) {
      for (nn::Linear* projection : {&block.attention.key, &block.attention.value}) {
        auto w = projection->weight.value().mut<double>();
        for (std::size_t i = 0; i < w.size(); ++i) w[i] = w[i / 64 / group * group * 64 + i % 64];
      }
    }
    nn::pool_kv_heads(pooled, full);
    const Tensor ids = random_tokens(2, 8, 11);
    CHECK(distance(pooled(ids, {}).value(), full(ids, {}).value()) < 1e-14);
  }
}

TEST_CASE("pool_kv_heads: sinks belong to query heads and are copied") {
  nn::TransformerConfig config = tiny_model_config();
  config.attention.sinks = true;
  config.attention.kv_heads = 4;
  nn::Transformer from(config, RandomKey{1});
  config.attention.kv_heads = 1;
  nn::Transformer to(config, RandomKey{2});
  from.blocks[1].attention.sinks.value() = Tensor::from<double>({4}, {1, -2, 3, -4});
  nn::pool_kv_heads(to, from);
  CHECK(distance(to.blocks[1].attention.sinks.value(), from.blocks[1].attention.sinks.value()) == 0);
}

TEST_CASE("pool_kv_heads: models that do not match are errors") {
  nn::Transformer four = make(4), two = make(2), wide = make(2, 2);
  CHECK(message_of([&] { nn::pool_kv_heads(four, two); }) ==
        "pool_kv_heads: kv_heads 4 does not divide kv_heads 2");
  CHECK(message_of([&] { nn::pool_kv_heads(wide, four); }) == "pool_kv_heads: the models have 2 and 4 heads");
}
