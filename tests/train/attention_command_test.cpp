#include <doctest/doctest.h>

#include "tests/train/run_program.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/nn/safetensors.h"
#include "tilegrad/train/measure/tensor_difference.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

using Tensors = std::map<std::string, Tensor>;

constexpr Index kBatch = 2, kTq = 5, kTk = 7, kHeads = 4, kKvHeads = 2, kDim = 8;

Tensor random(const Shape& shape, Dtype dtype, std::uint64_t seed) {
  return Tensor::normal(shape, dtype, RandomKey{seed});
}

Tensors plain_operands(Dtype dtype) {
  return {{"q", random({kBatch, kTq, kHeads, kDim}, dtype, 1)},
          {"k", random({kBatch, kTk, kKvHeads, kDim}, dtype, 2)},
          {"v", random({kBatch, kTk, kKvHeads, kDim}, dtype, 3)},
          {"dout", random({kBatch, kTq, kHeads, kDim}, dtype, 4)}};
}

Tensor some_mask(const Shape& shape) {
  Tensor mask = Tensor::empty(shape, Dtype::u8);
  RandomStream stream(RandomKey{9});
  for (auto& seen : mask.mut<std::uint8_t>()) seen = stream.uniform() < 0.6;
  return mask;
}

Tensors all_operands(Dtype dtype) {
  Tensors operands = plain_operands(dtype);
  operands["dlse"] = random({kBatch, kHeads, kTq}, dtype, 5);
  operands["bias"] = random({1, kHeads, kTq, kTk}, dtype, 6);
  operands["mask"] = some_mask({kBatch, 1, kTq, kTk});
  operands["sinks"] = random({kHeads}, dtype, 7);
  operands["alibi"] = Tensor::full({kHeads}, dtype, 0.25);
  operands["k_lengths"] = Tensor::from<std::int32_t>({kBatch}, {4, kTk});
  return operands;
}

// Three sequences, one after the other.
Tensors packed_operands() {
  Tensors operands = {{"q", random({1, 6, kHeads, kDim}, Dtype::f64, 1)},
                      {"k", random({1, 9, kKvHeads, kDim}, Dtype::f64, 2)},
                      {"v", random({1, 9, kKvHeads, kDim}, Dtype::f64, 3)},
                      {"dout", random({1, 6, kHeads, kDim}, Dtype::f64, 4)}};
  operands["cu_q"] = Tensor::from<std::int32_t>({4}, {0, 1, 3, 6});
  operands["cu_k"] = Tensor::from<std::int32_t>({4}, {0, 4, 6, 9});
  return operands;
}

Tensor get(const Tensors& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  return found == tensors.end() ? Tensor() : found->second;
}

// What the op itself gives: two backward passes, one from dout and one from dlse, add up in the leaves.
Tensors direct(const Tensors& in, AttentionKernel kernel, const AttentionOptions& options) {
  std::map<std::string, Var> leaves;
  for (const char* name : {"q", "k", "v", "bias", "sinks"}) {
    if (in.contains(name)) leaves[name] = Var::leaf(in.at(name));
  }
  const AttentionExtras extras = {.bias = leaves["bias"],
                                  .sinks = leaves["sinks"],
                                  .mask = get(in, "mask"),
                                  .alibi = get(in, "alibi"),
                                  .k_lengths = get(in, "k_lengths"),
                                  .cu_q = get(in, "cu_q"),
                                  .cu_k = get(in, "cu_k")};
  Tensors result;
  for (const char* cotangent : {"dout", "dlse"}) {
    if (!in.contains(cotangent)) continue;
    Tape tape;
    const AttentionResult y =
        attention_with_lse(leaves["q"], leaves["k"], leaves["v"], kernel, options, extras);
    result["out"] = y.out.value();
    result["lse"] = y.lse.value();
    tape.backward(cotangent == std::string("dout") ? y.out : y.lse, in.at(cotangent));
  }
  for (const auto& [name, leaf] : leaves) {
    if (leaf.tracked()) result["d" + name] = leaf.grad();
  }
  return result;
}

void check_equal(const Tensors& actual, const Tensors& expected, double allowed) {
  REQUIRE(actual.size() == expected.size());
  for (const auto& entry : expected) {
    CAPTURE(entry.first);
    REQUIRE(actual.contains(entry.first));
    const Tensor& t = actual.at(entry.first);
    REQUIRE(t.shape() == entry.second.shape());
    REQUIRE(t.dtype() == entry.second.dtype());
    CHECK(largest_difference(t, entry.second) <= allowed);
  }
}

// A folder with the operands, and the command that reads them.
class Attention {
 public:
  explicit Attention(const Tensors& operands) { save(operands); }

  void save(const Tensors& operands) const {
    nn::save_safetensors(in(), {.tensors = operands, .metadata = {}});
  }
  std::string in() const { return folder_ / "in.safetensors"; }
  std::string out() const { return folder_ / "out.safetensors"; }

  Output run(const std::vector<std::string>& options = {}) const {
    std::vector<std::string> arguments = {"attention", "--in", in(), "--out", out()};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return run_program(arguments);
  }

  Tensors result(const std::vector<std::string>& options = {}) const {
    const Output output = run(options);
    CAPTURE(output.err);
    REQUIRE(output.code == kSuccess);
    return nn::load_safetensors(out()).tensors;
  }

  // Also leaves no file.
  void check_error(const std::string& line, const std::vector<std::string>& options = {}) const {
    std::filesystem::remove(out());
    train::check_error(run(options), kFailure, line);
    CHECK_FALSE(std::filesystem::exists(out()));
  }

 private:
  TemporaryFolder folder_;
};

// The error when one operand is another tensor, or none.
void check_operand_error(const std::string& name, const Tensor& tensor, const std::string& line) {
  Tensors operands = plain_operands(Dtype::f32);
  if (tensor.defined()) {
    operands[name] = tensor;
  } else {
    operands.erase(name);
  }
  Attention(operands).check_error(line);
}

}  // namespace

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
  operands["sinks"] = random({kHeads}, Dtype::f32, 7);
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

TEST_CASE("attention: a tensor that is missing, unknown or of another dtype is an error") {
  const Tensor numbers = Tensor::zeros({kHeads}, Dtype::f32);
  for (const std::string name : {"q", "k", "v"}) {
    check_operand_error(name, {}, "in.safetensors: tensor `" + name + "` is missing");
  }
  check_operand_error("query", numbers, "in.safetensors: tensor `query` is not an operand of attention");
  check_operand_error("mask", numbers, "tensor `mask` is f32, not BOOL");
  check_operand_error("k_lengths", numbers, "tensor `k_lengths` is f32, not i32");
  check_operand_error("cu_q", numbers, "tensor `cu_q` is f32, not i32");
  check_operand_error("sinks", Tensor::zeros({kHeads}, Dtype::i32), "tensor `sinks` is i32, not f32 or f64");
  check_operand_error("v", Tensor::zeros({kBatch, kTk, kKvHeads, kDim}, Dtype::bf16),
                      "tensor `v` is bf16, not f32 or f64");
}

TEST_CASE("attention: shapes that do not fit each other are an error that names both") {
  const auto zeros = [](const Shape& shape) { return Tensor::zeros(shape, Dtype::f32); };
  check_operand_error("q", zeros({kBatch, kTq, kDim}), "q, k and v are (B, T, H, D), not (2, 5, 8)");
  check_operand_error("q", zeros({0, kTq, kHeads, kDim}), "tensor `q` is (0, 5, 4, 8), it has no elements");
  check_operand_error("q", zeros({kBatch, kTq, kHeads, 9}), "head sizes differ: q is (2, 5, 4, 9)");
  check_operand_error("v", zeros({kBatch, kTk + 1, kKvHeads, kDim}), "batch, length or heads differ");
  check_operand_error("q", zeros({kBatch, kTq, 3, kDim}), "2 key/value heads do not divide 3 query heads");
  check_operand_error("dout", zeros({kBatch, kTq, kHeads, 9}),
                      "tensor `dout` is f32 (2, 5, 4, 9), not f32 (2, 5, 4, 8)");
  check_operand_error("dlse", zeros({kBatch, kTq, kHeads}),
                      "tensor `dlse` is f32 (2, 5, 4), not f32 (2, 4, 5)");
  check_operand_error("bias", zeros({kBatch, kHeads, kTk, kTq}), "bias is (2, 4, 7, 5), not (1 or 2");
  check_operand_error("mask", Tensor::zeros({3, 1, kTq, kTk}, Dtype::u8),
                      "mask is (3, 1, 5, 7), not (1 or 2");
  check_operand_error("sinks", zeros({kKvHeads}), "sinks is f32 (2), not f32 (4)");
  check_operand_error("alibi", Tensor::zeros({kHeads}, Dtype::f64), "tensor `alibi` is f64 and q is f32");
}

TEST_CASE("attention: operands and options that contradict each other are an error") {
  Tensors operands = plain_operands(Dtype::f32);
  const Attention attention(operands);
  attention.check_error("causal sees nothing to the right", {"--causal", "--window-right", "2"});
  attention.check_error("the window reaches -1 to the left", {"--window-left", "-1"});
  attention.check_error("dropout is 1, not in [0, 1)", {"--dropout", "1"});
  attention.check_error("softcap is -2, must be positive", {"--softcap", "-2"});

  check_operand_error("k_lengths", Tensor::from<std::int32_t>({kBatch}, {3, 8}),
                      "a key length is 8, not in [0, 7]");
  check_operand_error("cu_q", Tensor::from<std::int32_t>({2}, {0, 5}), "cu_k is missing");
  operands.erase("dout");
  operands["dlse"] = random({kBatch, kHeads, kTq}, Dtype::f32, 5);
  Attention(operands).check_error("in.safetensors: dlse is given without dout");

  Tensors packed = packed_operands();
  packed["k_lengths"] = Tensor::from<std::int32_t>({1}, {9});
  Attention(packed).check_error("k_lengths would contradict them");
  packed.erase("k_lengths");
  packed["cu_k"] = Tensor::from<std::int32_t>({4}, {0, 6, 4, 9});
  Attention(packed).check_error("cu_k falls from 6 to 4");
}

TEST_CASE("attention: a damaged or missing file is reported in one line, and an old result stays") {
  const Attention attention(plain_operands(Dtype::f32));
  const Tensors before = attention.result();
  const std::string whole = read_file(attention.in());
  write_file(attention.in(), whole.substr(0, whole.size() - 1));
  check_error(attention.run(), kFailure, "in.safetensors: is truncated");
  check_equal(nn::load_safetensors(attention.out()).tensors, before, 0);

  write_file(attention.in(), "nonsense and more of it");
  attention.check_error("in.safetensors: the header should be");
  std::filesystem::remove(attention.in());
  attention.check_error("no such file");
  CHECK(run_program({"attention", "--in", attention.in()}).code == kWrongCommandLine);
  CHECK(attention.run({"--kernel", "fast"}).code == kWrongCommandLine);
  CHECK(attention.run({"--threads", "-1"}).code == kWrongCommandLine);
}

TEST_CASE("attention: a result that cannot be written is an error") {
  const Attention attention(plain_operands(Dtype::f32));
  check_error({"attention", "--in", attention.in(), "--out", "/proc/tilegrad/out"}, kFailure,
              "/proc/tilegrad/out");
}
