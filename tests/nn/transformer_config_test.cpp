#include "tests/nn/tiny.h"

using namespace tilegrad;
using namespace tilegrad::test;

TEST_CASE("transformer: sizes that follow from the settings") {
  nn::TransformerConfig config = tiny_model_config();
  CHECK(config.hidden_size() == 64);
  config.mlp = nn::MlpKind::swiglu;
  CHECK(config.hidden_size() == 48);  // 8 · 16 / 3 = 42.7, rounded up to a multiple of 8
  CHECK(config.kv_bytes_per_token() == 2 * 2 * 2 * 4 * 8);
  config.hidden = 10;
  CHECK(config.hidden_size() == 10);
}

TEST_CASE("transformer: a setting that makes no sense is named with its value") {
  const auto message = [](auto&& change) {
    nn::TransformerConfig config = tiny_model_config();
    change(config);
    return message_of([&] { config.validate(); });
  };
  using C = nn::TransformerConfig;
  CHECK(message([](C&) {}).empty());
  CHECK(message([](C& c) { c.attention.kv_heads = 3; }) == "attention: kv_heads 3 does not divide heads 4");
  CHECK(message([](C& c) { c.attention.heads = 3; }) == "attention: heads 3 does not divide width 16");
  CHECK(message([](C& c) { c.vocabulary = 0; }) == "transformer: vocabulary is 0, must be at least 1");
  CHECK(message([](C& c) { c.context = 0; }) == "transformer: context is 0, must be at least 1");
  CHECK(message([](C& c) { c.layers = -1; }) == "transformer: layers is -1, must be at least 1");
  CHECK(message([](C& c) { c.attention.heads = 0; }) == "attention: heads is 0, must be at least 1");
  CHECK(message([](C& c) { c.width = 0; }) == "transformer: width is 0, must be at least 1");
  CHECK(message([](C& c) { c.context = Index{1} << 31; }) ==
        "transformer: context is 2147483648, must be at most 2147483647");
  CHECK(message([](C& c) { c.hidden = -8; }) == "transformer: hidden is -8, must not be negative");
  CHECK(message([](C& c) { c.dropout = 1; }) == "transformer: dropout is 1, not in [0, 1)");
  CHECK(message([](C& c) { c.dropout = std::nan(""); }) == "transformer: dropout is nan, not in [0, 1)");
  CHECK(message([](C& c) { c.attention.window = -1; }) == "attention: window is -1, must not be negative");
  CHECK(message([](C& c) { c.attention.window = Index{1} << 31; }) ==
        "attention: window is 2147483648, must be at most 2147483647");
  CHECK(message([](C& c) { c.attention.softcap = 0; }) == "attention: softcap is 0, must be positive");
  CHECK(message([](C& c) { c.attention.softcap = std::nan(""); }) ==
        "attention: softcap is nan, must be positive");
  CHECK(message([](C& c) { c.dtype = Dtype::bf16; }) ==
        "transformer: parameters are bf16, must be f32 or f64");
  CHECK(message([](C& c) {
          c.attention.positions = nn::PositionEncoding::rope;
          c.width = 20;
        }) == "attention: rotary positions need an even head size, 20 / 4 is 5");
}

TEST_CASE("transformer: a model that does not fit is refused before it takes memory") {
  nn::TransformerConfig config = tiny_model_config();
  config.layers = 2'000'000'000;
  const Index before = memory::usage().live;
  memory::reset_peak();
  const std::string message = message_of([&] { nn::Transformer(config, RandomKey{1}); });
  CHECK(message.find(" of parameters do not fit into ") != std::string::npos);
  CHECK(memory::usage().peak == before);
  config.width = 2'000'000'000;
  CHECK(message_of([&] { config.parameter_count(); }).starts_with("transformer: the model is too large"));
}
