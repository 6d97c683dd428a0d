#pragma once

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

#include "tests/tensors.h"
#include "tests/train/run_program.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/nn/safetensors.h"
#include "tilegrad/train/measure/tensor_difference.h"

namespace tilegrad::train {

using test::integers;
using test::random;

using Tensors = std::map<std::string, Tensor>;

inline constexpr Index kBatch = 2, kTq = 5, kTk = 7, kHeads = 4, kKvHeads = 2, kDim = 8;

inline Tensors plain_operands(Dtype dtype) {
  return {{"q", random({kBatch, kTq, kHeads, kDim}, 1, dtype)},
          {"k", random({kBatch, kTk, kKvHeads, kDim}, 2, dtype)},
          {"v", random({kBatch, kTk, kKvHeads, kDim}, 3, dtype)},
          {"dout", random({kBatch, kTq, kHeads, kDim}, 4, dtype)}};
}

inline Tensors all_operands(Dtype dtype) {
  Tensors operands = plain_operands(dtype);
  operands["dlse"] = random({kBatch, kHeads, kTq}, 5, dtype);
  operands["bias"] = random({1, kHeads, kTq, kTk}, 6, dtype);
  operands["mask"] = test::random_mask({kBatch, 1, kTq, kTk});
  operands["sinks"] = random({kHeads}, 7, dtype);
  operands["alibi"] = Tensor::full({kHeads}, dtype, 0.25);
  operands["k_lengths"] = integers({4, kTk});
  return operands;
}

/// Three sequences, one after the other.
inline Tensors packed_operands() {
  Tensors operands = {{"q", random({1, 6, kHeads, kDim}, 1)},
                      {"k", random({1, 9, kKvHeads, kDim}, 2)},
                      {"v", random({1, 9, kKvHeads, kDim}, 3)},
                      {"dout", random({1, 6, kHeads, kDim}, 4)}};
  operands["cu_q"] = integers({0, 1, 3, 6});
  operands["cu_k"] = integers({0, 4, 6, 9});
  return operands;
}

inline Tensor get(const Tensors& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  return found == tensors.end() ? Tensor() : found->second;
}

/// What the op itself gives: two backward passes, one from dout and one from dlse, add up in the leaves.
inline Tensors direct(const Tensors& in, AttentionKernel kernel, const AttentionOptions& options) {
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

inline void check_equal(const Tensors& actual, const Tensors& expected, double allowed) {
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

/// A folder with the operands, and the command that reads them.
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

}  // namespace tilegrad::train
