#include "tilegrad/autograd/gradcheck_cases.h"

#include <array>

#include "tilegrad/autograd/checkpoint.h"
#include "tilegrad/autograd/ops.h"

namespace tilegrad {

GradcheckCase::GradcheckCase(std::string op_, std::initializer_list<Shape> input_shapes,
                             Differentiable function_)
    : op(std::move(op_)), function(std::move(function_)) {
  constexpr RandomKey kKey{10};
  for (const Shape& shape : input_shapes) {
    shapes += fmt::format("{}{}", shapes.empty() ? "" : " ", shape);
    inputs.push_back(Tensor::normal(shape, Dtype::f64, kKey.fold(inputs.size())));
  }
}

namespace {

using Inputs = std::span<const Var>;

class Cases {
 public:
  void add(std::string op, std::initializer_list<Shape> shapes, Differentiable function) {
    cases_.emplace_back(std::move(op), shapes, std::move(function));
  }
  std::vector<GradcheckCase> take() { return std::move(cases_); }

 private:
  std::vector<GradcheckCase> cases_;
};

// Away from 0, where some functions have a pole or a kink.
Var positive(const Var& x) { return shift(mul(x, x), 0.5); }

void add_arithmetic(Cases& cases) {
  cases.add("add", {{3, 4}, {3, 4}}, [](Inputs in) { return add(in[0], in[1]); });
  cases.add("sub", {{3, 4}, {3, 4}}, [](Inputs in) { return sub(in[0], in[1]); });
  cases.add("sub x x", {{3, 4}}, [](Inputs in) { return sub(in[0], in[0]); });
  cases.add("mul", {{3, 4}, {3, 4}}, [](Inputs in) { return mul(in[0], in[1]); });
  cases.add("mul x x", {{3, 4}}, [](Inputs in) { return mul(in[0], in[0]); });
  cases.add("div", {{3, 4}, {3, 4}}, [](Inputs in) { return div(in[0], positive(in[1])); });
  cases.add("div x x", {{3, 4}}, [](Inputs in) { return div(positive(in[0]), positive(in[0])); });
  cases.add("maximum", {{3, 4}, {3, 4}}, [](Inputs in) { return maximum(in[0], in[1]); });
  cases.add("minimum", {{3, 4}, {3, 4}}, [](Inputs in) { return minimum(in[0], in[1]); });
  const Tensor chosen = Tensor::from<std::uint8_t>({2, 3}, {1, 0, 0, 2, 1, 0});
  cases.add("where", {{2, 3}, {2, 3}}, [chosen](Inputs in) { return where(chosen, in[0], in[1]); });
  cases.add("where x x", {{2, 3}}, [chosen](Inputs in) { return where(chosen, in[0], in[0]); });
  cases.add("shift", {{5}}, [](Inputs in) { return shift(in[0], 2.5); });
  cases.add("quotient", {{5}}, [](Inputs in) { return quotient(-1.7, positive(in[0])); });
  cases.add("scale", {{5}}, [](Inputs in) { return scale(in[0], -1.7); });
  cases.add("add_bias", {{2, 3, 4}, {4}}, [](Inputs in) { return add_bias(in[0], in[1]); });
  cases.add("sum", {{3, 5}}, [](Inputs in) { return sum(in[0]); });
  cases.add("mean", {{3, 5}}, [](Inputs in) { return mean(in[0]); });
}

void add_functions(Cases& cases) {
  cases.add("exp", {{4, 5}}, [](Inputs in) { return exp(in[0]); });
  cases.add("log", {{4, 5}}, [](Inputs in) { return log(positive(in[0])); });
  cases.add("tanh", {{4, 5}}, [](Inputs in) { return tanh(in[0]); });
  cases.add("sigmoid", {{4, 5}}, [](Inputs in) { return sigmoid(in[0]); });
  cases.add("abs", {{4, 5}}, [](Inputs in) { return abs(in[0]); });
  cases.add("sqrt", {{4, 5}}, [](Inputs in) { return sqrt(positive(in[0])); });
  cases.add("pow 3", {{4, 5}}, [](Inputs in) { return pow(in[0], 3); });
  cases.add("pow -1.5", {{4, 5}}, [](Inputs in) { return pow(positive(in[0]), -1.5); });
  cases.add("clamp", {{4, 5}}, [](Inputs in) { return clamp(in[0], -0.6, 0.8); });
}

void add_axes(Cases& cases) {
  const Tensor ids = Tensor::from<std::int32_t>({2, 4}, {2, 0, 1, 1, 0, 2, 2, 1});
  for (const int axis : {0, 1, -1}) {
    const auto name = [axis](std::string_view op) { return fmt::format("{} axis {}", op, axis); };
    cases.add(name("sum"), {{2, 3, 4}}, [axis](Inputs in) { return sum(in[0], axis); });
    cases.add(name("mean"), {{2, 3, 4}}, [axis](Inputs in) { return mean(in[0], axis); });
    cases.add(name("max"), {{2, 3, 4}}, [axis](Inputs in) { return max(in[0], axis); });
    cases.add(name("broadcast"), {{3, 2}}, [axis](Inputs in) { return broadcast(in[0], axis, 4); });
    cases.add(name("stack"), {{2, 3}, {2, 3}}, [axis](Inputs in) { return stack(in, axis); });
    cases.add(name("select"), {{2, 3, 4}}, [axis](Inputs in) { return select(in[0], axis, -2); });
  }
  cases.add("gather axis 1", {{2, 3, 4}}, [ids](Inputs in) { return gather(in[0], ids, 1); });
  cases.add("gather twice", {{2, 4, 3}},
            [ids](Inputs in) { return add(gather(in[0], ids), gather(in[0], ids)); });
  cases.add("transpose", {{2, 3, 4}}, [](Inputs in) { return transpose(in[0]); });
}

void add_products(Cases& cases) {
  cases.add("matmul", {{3, 4}, {4, 5}}, [](Inputs in) { return matmul(in[0], in[1]); });
  cases.add("matmul batched", {{2, 3, 4}, {2, 4, 5}}, [](Inputs in) { return matmul(in[0], in[1]); });
  cases.add("matmul transposed", {{2, 2, 3, 4}, {2, 2, 5, 4}},
            [](Inputs in) { return matmul(in[0], in[1], true); });
  cases.add("linear", {{2, 3, 4}, {5, 4}}, [](Inputs in) { return linear(in[0], in[1]); });
  cases.add("linear with bias", {{6, 4}, {5, 4}, {5}}, [](Inputs in) { return linear(in[0], in[1], in[2]); });
  cases.add("linear x x", {{4, 4}}, [](Inputs in) { return linear(in[0], in[0]); });
}

void add_elementwise(Cases& cases) {
  cases.add("relu", {{4, 5}}, [](Inputs in) { return relu(in[0]); });
  cases.add("gelu", {{4, 5}}, [](Inputs in) { return gelu(in[0]); });
  cases.add("silu", {{4, 5}}, [](Inputs in) { return silu(in[0]); });
  cases.add("swiglu", {{4, 5}, {4, 5}}, [](Inputs in) { return swiglu(in[0], in[1]); });
  cases.add("swiglu x x", {{4, 5}}, [](Inputs in) { return swiglu(in[0], in[0]); });
  cases.add("softmax", {{4, 7}}, [](Inputs in) { return softmax(in[0]); });
  cases.add("dropout", {{4, 7}}, [](Inputs in) { return dropout(in[0], 0.4, RandomKey{3}); });
  cases.add("layernorm", {{2, 3, 6}, {6}, {6}}, [](Inputs in) { return layernorm(in[0], in[1], in[2]); });
  cases.add("rmsnorm", {{2, 3, 6}, {6}}, [](Inputs in) { return rmsnorm(in[0], in[1]); });
}

void add_shapes(Cases& cases) {
  cases.add("reshape", {{3, 4}}, [](Inputs in) { return reshape(in[0], {6, 2}); });
  cases.add("slice", {{2, 4, 3}}, [](Inputs in) { return slice(in[0], 1, 1, 3); });
  cases.add("slice twice", {{2, 3}},
            [](Inputs in) { return add(slice(in[0], -1, 0, 2), slice(in[0], -1, 1, 3)); });
  cases.add("concat", {{2, 1, 3}, {2, 2, 3}}, [](Inputs in) { return concat(in, 1); });
  cases.add("concat x x", {{2, 3}}, [](Inputs in) { return concat(std::array{in[0], in[0]}, 0); });
  cases.add("swap_axes", {{2, 3, 4, 2}}, [](Inputs in) { return swap_axes(in[0]); });
  cases.add("cast", {{2, 3}}, [](Inputs in) { return cast(in[0], Dtype::f64); });
}

void add_tokens(Cases& cases) {
  const Tensor ids = Tensor::from<std::int32_t>({2, 3}, {4, 0, 4, 1, 4, 0});
  cases.add("embedding", {{5, 3}}, [ids](Inputs in) { return embedding(in[0], ids); });
  cases.add("rope", {{2, 3, 2, 4}}, [](Inputs in) { return rope(in[0], 3, 100.0); });
  const Tensor targets = Tensor::from<std::int32_t>({2, 3}, {4, kIgnored, 0, 2, 2, kIgnored});
  cases.add("cross_entropy", {{2, 3, 5}}, [targets](Inputs in) { return cross_entropy(in[0], targets); });
  cases.add("linear_cross_entropy", {{2, 3, 4}, {5, 4}},
            [targets](Inputs in) { return linear_cross_entropy(in[0], in[1], targets); });
}

struct Mask {
  std::string_view name;
  bool causal;
  Align align;
};

void add_attention(Cases& cases, AttentionKernel kernel, Index kv_heads, const Mask& mask, Index tq, Index tk,
                   double dropout) {
  constexpr Index kBatch = 2, kHeads = 4, kHeadSize = 3, kValueSize = 2;
  const AttentionOptions options = {.causal = mask.causal,
                                    .align = mask.align,
                                    .dropout = dropout,
                                    .dropout_key = RandomKey{5},
                                    .tiles = {2, 2}};
  const std::string name =
      fmt::format("attention {} {} {}{}", kernel == AttentionKernel::naive ? "naive" : "flash",
                  kv_heads == kHeads ? "mha"
                  : kv_heads == 1    ? "mqa"
                                     : "gqa",
                  mask.name, dropout > 0 ? " dropout" : "");
  cases.add(name,
            {{kBatch, tq, kHeads, kHeadSize},
             {kBatch, tk, kv_heads, kHeadSize},
             {kBatch, tk, kv_heads, kValueSize}},
            [=](Inputs in) { return attention(in[0], in[1], in[2], kernel, options); });
}

void add_attention_grid(Cases& cases) {
  constexpr Mask kMasks[] = {{"full", false, Align::bottom_right},
                             {"causal", true, Align::bottom_right},
                             {"causal top-left", true, Align::top_left}};
  // Lengths that are no multiple of a tile's 2: as many queries as keys, fewer, and more.
  constexpr std::array<Index, 2> kLengths[] = {{3, 3}, {2, 5}, {5, 2}};
  for (const AttentionKernel kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    for (const Index kv_heads : {4, 2, 1}) {
      for (const Mask& mask : kMasks) {
        for (const auto& lengths : kLengths) {
          for (const double dropout : {0.0, 0.2}) {
            add_attention(cases, kernel, kv_heads, mask, lengths[0], lengths[1], dropout);
          }
        }
      }
    }
  }
}

Var twice_gelu(const Var& x) { return gelu(mul(x, gelu(x))); }

void add_compositions(Cases& cases) {
  cases.add("checkpoint", {{3, 4}, {3, 4}},
            [](Inputs in) { return checkpoint([](Inputs xs) { return gelu(mul(xs[0], xs[1])); }, in); });
  cases.add("recomputed", {{3, 4}, {3, 4}, {5, 4}}, [](Inputs in) {
    return linear(recomputed([](Inputs xs) { return swiglu(xs[0], xs[1]); }, in.first(2)), in[2]);
  });
  cases.add("checkpoint nested", {{3, 4}}, [](Inputs in) {
    return checkpoint([](const Var& x) { return mul(x, checkpoint(twice_gelu, x)); }, in[0]);
  });
}

}  // namespace

std::vector<GradcheckCase> gradcheck_cases() {
  Cases cases;
  add_arithmetic(cases);
  add_functions(cases);
  add_axes(cases);
  add_products(cases);
  add_elementwise(cases);
  add_shapes(cases);
  add_tokens(cases);
  add_attention_grid(cases);
  add_compositions(cases);
  return cases.take();
}

}  // namespace tilegrad
