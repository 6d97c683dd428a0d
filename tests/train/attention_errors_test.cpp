#include <doctest/doctest.h>

#include "tests/train/attention_operands.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

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

  check_operand_error("k_lengths", integers({3, 8}), "a key length is 8, not in [0, 7]");
  check_operand_error("cu_q", integers({0, 5}), "cu_k is missing");
  operands.erase("dout");
  operands["dlse"] = random({kBatch, kHeads, kTq}, 5, Dtype::f32);
  Attention(operands).check_error("in.safetensors: dlse is given without dout");

  Tensors packed = packed_operands();
  packed["k_lengths"] = integers({9});
  Attention(packed).check_error("k_lengths would contradict them");
  packed.erase("k_lengths");
  packed["cu_k"] = integers({0, 6, 4, 9});
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
