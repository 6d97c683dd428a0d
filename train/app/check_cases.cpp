#include "tilegrad/train/app/check_cases.h"

#include <memory>

#include "tilegrad/nn/transformer.h"

namespace tilegrad::train {

namespace {

void add_block(std::vector<GradcheckCase>& cases, std::string_view name,
               const nn::TransformerConfig& config) {
  const auto block = std::make_shared<nn::Block>(config, RandomKey{7});
  cases.emplace_back(
      fmt::format("block {}", name), std::initializer_list<Shape>{{2, 4, 8}},
      [block](std::span<const Var> in) { return (*block)(in[0], {.training = true, .key = RandomKey{8}}); });
}

void add_blocks(std::vector<GradcheckCase>& cases) {
  nn::TransformerConfig config = {
      .vocabulary = 5,
      .context = 4,
      .layers = 1,
      .width = 8,
      .attention = {.heads = 2, .kv_heads = 1, .positions = nn::PositionEncoding::rope},
      .bias = true,
      .dropout = 0.1,
      .init = {.linear = 0.3},
      .dtype = Dtype::f64};
  add_block(cases, "gelu", config);
  config.mlp = nn::MlpKind::swiglu;
  add_block(cases, "swiglu", config);
  config.attention.positions = nn::PositionEncoding::alibi;
  config.attention.window = 2;
  config.attention.softcap = 2;
  config.attention.sinks = true;
  add_block(cases, "window softcap sinks alibi", config);
}

}  // namespace

std::vector<GradcheckCase> check_cases() {
  std::vector<GradcheckCase> cases = gradcheck_cases();
  add_blocks(cases);
  return cases;
}

}  // namespace tilegrad::train
