// Values that PyTorch computed; tests/golden/make_golden.py says how.
#include "tests/nn/tiny.h"
#include "tilegrad/nn/adamw.h"
#include "tilegrad/nn/safetensors.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

nn::Safetensors golden(const std::string& name) {
  return nn::load_safetensors(std::string(TILEGRAD_TESTS_DIR) + "/golden/" + name);
}

constexpr double kClose = 1e-12;

}  // namespace

TEST_CASE("attention: forward and backward agree with PyTorch for MHA, GQA and MQA") {
  const nn::Safetensors file = golden("attention.safetensors");
  for (const std::string kind : {"mha", "gqa", "mqa"}) {
    for (const auto kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
      CAPTURE(kind);
      CAPTURE(static_cast<int>(kernel));
      const auto tensor = [&](const std::string& name) { return file.tensors.at(kind + "." + name); };
      const Var q = Var::leaf(tensor("q")), k = Var::leaf(tensor("k")), v = Var::leaf(tensor("v"));
      Tape tape;
      const Var out = attention(q, k, v, kernel, {.causal = true});
      tape.backward(out, tensor("dout"));
      CHECK(distance(out.value(), tensor("out")) < kClose);
      CHECK(distance(q.grad(), tensor("dq")) < kClose);
      CHECK(distance(k.grad(), tensor("dk")) < kClose);
      CHECK(distance(v.grad(), tensor("dv")) < kClose);
    }
  }
}

TEST_CASE("block: forward and backward of a pre-norm block agree with PyTorch") {
  const nn::Safetensors file = golden("block.safetensors");
  nn::TransformerConfig config = tiny_model_config();
  config.width = 8;
  config.hidden = 12;
  config.bias = true;
  nn::Block block(config, RandomKey{1});
  const auto parameters = nn::parameters(block);
  for (const nn::NamedParameter& p : parameters) {
    p.parameter->value() = file.at(p.name, p.parameter->shape(), Dtype::f64).clone();
  }
  const Var x = Var::leaf(file.tensors.at("x"));
  Tape tape;
  const Var y = block(x, {.training = true});
  tape.backward(y, file.tensors.at("dy"));
  CHECK(distance(y.value(), file.tensors.at("y")) < kClose);
  CHECK(distance(x.grad(), file.tensors.at("dx")) < kClose);
  CHECK(file.tensors.size() == 2 * parameters.size() + 4);
  for (const nn::NamedParameter& p : parameters) {
    CAPTURE(p.name);
    CHECK(distance(p.parameter->grad(), file.tensors.at("d" + p.name)) < kClose);
  }
}

TEST_CASE("AdamW: three clipped steps agree with PyTorch, with decay on the matrix alone") {
  const nn::Safetensors file = golden("adamw.safetensors");
  Parameter matrix(file.tensors.at("matrix.0").clone()), bias(file.tensors.at("bias.0").clone());
  nn::AdamW optimizer({{"matrix", &matrix}, {"bias", &bias}}, {});
  for (const std::string step : {"1", "2", "3"}) {
    CAPTURE(step);
    matrix.grad() = file.tensors.at("matrix.grad." + step);
    bias.grad() = file.tensors.at("bias.grad." + step);
    optimizer.step(0.05);
    CHECK(distance(matrix.value(), file.tensors.at("matrix." + step)) < kClose);
    CHECK(distance(bias.value(), file.tensors.at("bias." + step)) < kClose);
  }
}
