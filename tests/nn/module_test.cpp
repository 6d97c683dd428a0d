#include "tilegrad/nn/module.h"

#include "tests/nn/tiny.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

// Every kind of layer, with and without what is optional.
std::vector<nn::TransformerConfig> kinds_of_models() {
  std::vector<nn::TransformerConfig> kinds;
  for (const auto mlp : {nn::MlpKind::gelu, nn::MlpKind::relu, nn::MlpKind::swiglu}) {
    for (const auto norm : {nn::NormKind::layernorm, nn::NormKind::rmsnorm}) {
      for (const auto positions : {nn::PositionEncoding::learned, nn::PositionEncoding::rope}) {
        for (const bool flag : {false, true}) {
          nn::TransformerConfig c = tiny_model_config();
          c.mlp = mlp;
          c.norm = norm;
          c.attention.positions = positions;
          c.bias = c.attention.sinks = flag;
          c.tie = mlp == nn::MlpKind::gelu ? flag : !flag;
          kinds.push_back(c);
        }
      }
    }
  }
  return kinds;
}

bool all_zero(const Tensor& t) {
  for (Index i = 0; i < t.size(); ++i) {
    if (t.at(i) != 0) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("module: parameters are named by their path, in the order of the visits") {
  nn::TransformerConfig config = tiny_model_config();
  config.layers = 1;
  nn::Transformer model(config, RandomKey{1});
  std::vector<std::string> names;
  for (const nn::NamedParameter& p : nn::parameters(model)) names.push_back(p.name);
  const std::vector<std::string> expected = {"tokens.weight",
                                             "positions.weight",
                                             "blocks.0.norm_attention.weight",
                                             "blocks.0.norm_attention.bias",
                                             "blocks.0.attention.query.weight",
                                             "blocks.0.attention.key.weight",
                                             "blocks.0.attention.value.weight",
                                             "blocks.0.attention.output.weight",
                                             "blocks.0.norm_mlp.weight",
                                             "blocks.0.norm_mlp.bias",
                                             "blocks.0.mlp.up.weight",
                                             "blocks.0.mlp.down.weight",
                                             "norm.weight",
                                             "norm.bias"};
  CHECK(names == expected);
}

TEST_CASE("module: no member is forgotten: counts agree, and every parameter gets a gradient") {
  for (const nn::TransformerConfig& config : kinds_of_models()) {
    nn::Transformer model(config, RandomKey{1});
    const auto parameters = nn::parameters(model);
    CAPTURE(static_cast<int>(config.mlp));
    CAPTURE(static_cast<int>(config.norm));
    CAPTURE(config.bias);
    CAPTURE(config.tie);
    CHECK(nn::count(parameters) == config.parameter_count());
    const Run result = run(model, random_tokens(3, 8, config.vocabulary), {.training = true});
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      CAPTURE(parameters[i].name);
      REQUIRE(result.grads[i].defined());
      // A bias that all keys share moves all scores of a row alike, which softmax does not see.
      const bool invisible = config.attention.positions == nn::PositionEncoding::learned &&
                             parameters[i].name.ends_with("attention.key.bias");
      CHECK((invisible || !all_zero(result.grads[i])));
    }
  }
}

TEST_CASE("module: zero_grad gives the gradients' memory back") {
  nn::Transformer model(tiny_model_config(), RandomKey{1});
  const Index before = live(memory::Category::gradients);
  {
    Tape tape;
    tape.backward(mean(model(random_tokens(2, 8, 11), {.training = true})));
  }
  CHECK(live(memory::Category::gradients) > before);
  nn::zero_grad(nn::parameters(model));
  CHECK(live(memory::Category::gradients) == before);
}
