#include <doctest/doctest.h>

#include "tests/train/attention_operands.h"

using namespace tilegrad;
using namespace tilegrad::train;

TEST_CASE("attention: writes what the op gives, with every operand, for both kernels and dtypes") {
  for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
    const Tensors operands = all_operands(dtype);
    const Attention attention(operands);
    // The two cotangents are added in another order.
    const double allowed = dtype == Dtype::f32 ? 1e-5 : 1e-13;
    check_equal(attention.result({"--kernel", "naive"}), direct(operands, AttentionKernel::naive, {}),
                allowed);
    check_equal(attention.result(), direct(operands, AttentionKernel::flash, {}), allowed);
  }
}

TEST_CASE("attention: agrees with PyTorch for MHA, GQA and MQA") {
  const auto golden =
      nn::load_safetensors(std::string(TILEGRAD_TESTS_DIR) + "/golden/attention.safetensors").tensors;
  for (const std::string kind : {"mha.", "gqa.", "mqa."}) {
    CAPTURE(kind);
    Tensors operands;
    for (const char* name : {"q", "k", "v", "dout"}) operands[name] = golden.at(kind + name);
    Tensors result = Attention(operands).result({"--causal"});
    result.erase("lse");
    Tensors expected;
    for (const char* name : {"out", "dq", "dk", "dv"}) expected[name] = golden.at(kind + name);
    check_equal(result, expected, 1e-13);
  }
}

TEST_CASE("attention: each option reaches the op") {
  struct OptionCase {
    std::vector<std::string> words;
    AttentionOptions options = {};
  };
  const std::vector<OptionCase> cases = {
      {{"--causal"}, {.causal = true}},
      {{"--causal", "--align", "top_left"}, {.causal = true, .align = Align::top_left}},
      {{"--window-left", "2"}, {.window = {.left = 2}}},
      {{"--window-right", "1"}, {.window = {.right = 1}}},
      {{"--softcap", "0.5"}, {.softcap = 0.5}},
      {{"--scale", "2"}, {.scale = 2}},
      {{"--dropout", "0.3"}, {.dropout = 0.3, .dropout_key = RandomKey{1}}},
      {{"--dropout", "0.3", "--seed", "7"}, {.dropout = 0.3, .dropout_key = RandomKey{7}}}};
  const Tensors operands = plain_operands(Dtype::f64);
  const Attention attention(operands);
  std::vector<Tensor> outs = {attention.result().at("out")};
  for (const OptionCase& c : cases) {
    CAPTURE(c.words);
    const Tensors result = attention.result(c.words);
    check_equal(result, direct(operands, AttentionKernel::flash, c.options), 0);
    for (const Tensor& other : outs) CHECK(largest_difference(result.at("out"), other) > 1e-3);
    outs.push_back(result.at("out"));
  }
}

TEST_CASE("attention: packed sequences do not see each other") {
  const Tensors operands = packed_operands();
  const Tensors result = Attention(operands).result({"--causal"});
  check_equal(result, direct(operands, AttentionKernel::flash, {.causal = true}), 0);
  // The second sequence alone.
  const auto part = [&](const char* name, Index begin, Index end) {
    return slice(Var(operands.at(name)), 1, begin, end).value();
  };
  const Tensors alone = Attention({{"q", part("q", 1, 3)}, {"k", part("k", 4, 6)}, {"v", part("v", 4, 6)}})
                            .result({"--causal"});
  CHECK(largest_difference(alone.at("out"), slice(Var(result.at("out")), 1, 1, 3).value()) < 1e-14);
}

TEST_CASE("attention: gradients are written if there is a dout, and only of what there is") {
  const auto names = [](const Tensors& tensors) {
    std::string text;
    for (const auto& entry : tensors) text += entry.first + " ";
    return text;
  };
  Tensors operands = plain_operands(Dtype::f32);
  const Attention attention(operands);
  CHECK(names(attention.result()) == "dk dq dv lse out ");
  operands["sinks"] = random({kHeads}, 7, Dtype::f32);
  attention.save(operands);
  CHECK(names(attention.result()) == "dk dq dsinks dv lse out ");
  operands.erase("dout");
  attention.save(operands);
  CHECK(names(attention.result()) == "lse out ");
}

TEST_CASE("attention: --dtype converts the input") {
  const Tensors wide = all_operands(Dtype::f64);
  Tensors narrow = wide;
  for (auto& entry : narrow) {
    if (entry.second.dtype() == Dtype::f64) entry.second = entry.second.cast(Dtype::f32);
  }
  const Tensors expected = Attention(narrow).result();
  CHECK(expected.at("out").dtype() == Dtype::f32);
  check_equal(Attention(wide).result({"--dtype", "f32"}), expected, 0);
  Tensors mixed = wide;
  mixed["k"] = narrow["k"];
  check_equal(Attention(mixed).result({"--dtype", "f32"}), expected, 0);
  Attention(mixed).check_error("tensor `k` is f32 and q is f64; --dtype would convert both");
}

TEST_CASE("attention: the number of threads changes no bit") {
  const Attention attention(all_operands(Dtype::f32));
  const Tensors one = attention.result({"--threads", "1"});
  check_equal(attention.result({"--threads", "3"}), one, 0);
}

TEST_CASE("attention: prints what it wrote") {
  const Attention attention(plain_operands(Dtype::f32));
  const Output output = attention.run();
  CHECK(output.out.find("out    f32 (2, 5, 4, 8)\n") != std::string::npos);
  CHECK(output.out.find("lse    f32 (2, 4, 5)\n") != std::string::npos);
  CHECK(output.err.empty());
}
