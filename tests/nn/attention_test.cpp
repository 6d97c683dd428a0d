#include "tilegrad/nn/attention.h"

#include "tests/nn/tiny.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

nn::Attention make_layer(Index kv_heads, nn::PositionEncoding positions = nn::PositionEncoding::rope) {
  return {{.heads = 4, .kv_heads = kv_heads, .positions = positions},
          16,
          true,
          0,
          0.3,
          0.3,
          Dtype::f64,
          RandomKey{3}};
}

// The rows of each key/value head `times` times in a row.
Tensor repeat_heads(const Tensor& t, Index heads, Index times) {
  const Index head = t.size() / heads;
  Tensor out = Tensor::empty(t.shape().with(0, t.dim(0) * times), t.dtype());
  auto to = out.mut<double>();
  for (Index i = 0; i < out.size(); ++i) {
    to[i] = t.at(i / head / times * head + i % head);
  }
  return out;
}

}  // namespace

TEST_CASE("attention: GQA and MQA equal MHA whose key/value heads are repeated") {
  const Var x = random({2, 7, 16}, 4);
  for (const Index kv_heads : {2, 1}) {
    CAPTURE(kv_heads);
    const nn::Attention grouped = make_layer(kv_heads);
    nn::Attention full = make_layer(4);
    const std::pair<nn::Linear*, const nn::Linear*> pairs[] = {{&full.key, &grouped.key},
                                                               {&full.value, &grouped.value}};
    for (const auto& [to, from] : pairs) {
      to->weight.value() = repeat_heads(from->weight.value(), kv_heads, 4 / kv_heads);
      to->bias.value() = repeat_heads(from->bias.value(), kv_heads, 4 / kv_heads);
    }
    CHECK(distance(grouped(x, {}).value(), full(x, {}).value()) < 1e-14);
  }
}

TEST_CASE("attention: heads that do not divide are named") {
  CHECK(message_of([] { make_layer(3); }) == "attention: kv_heads 3 does not divide heads 4");
}

TEST_CASE("attention: a full cache, and one for several sequences, are errors") {
  const nn::Attention layer = make_layer(2);
  nn::KvCache cache(8, 2, 4, Dtype::f64);
  layer(Tensor::zeros({1, 6, 16}, Dtype::f64), cache);
  CHECK(message_of([&] {
          layer(Tensor::zeros({1, 3, 16}, Dtype::f64), cache);
        }) == "attention: the cache holds 6 of 8 positions, 3 more do not fit");
  CHECK(cache.length == 6);
  CHECK(message_of([&] {
          layer(Tensor::zeros({2, 1, 16}, Dtype::f64), cache);
        }) == "attention: a cache holds one sequence, x is (2, 1, 16)");
}

TEST_CASE("attention: no gradient is lost in a cache") {
  const nn::Attention layer = make_layer(2);
  nn::KvCache cache(8, 2, 4, Dtype::f64);
  Tape tape;
  const std::string message = message_of([&] { layer(Tensor::zeros({1, 1, 16}, Dtype::f64), cache); });
  CHECK(message.starts_with("attention with a cache: has no backward"));
}

TEST_CASE("attention: dropout acts in training alone, and the key decides it") {
  nn::Attention layer = make_layer(2);
  layer.dropout = 0.5;
  const Var x = random({2, 7, 16}, 4);
  const Tensor plain = layer(x, {}).value();
  const Tensor dropped = layer(x, {.training = true, .key = {1}}).value();
  CHECK(distance(plain, make_layer(2)(x, {}).value()) == 0);
  CHECK(distance(plain, dropped) > 1e-3);
  CHECK(distance(dropped, layer(x, {.training = true, .key = {1}}).value()) == 0);
  CHECK(distance(dropped, layer(x, {.training = true, .key = {2}}).value()) > 1e-3);
}
