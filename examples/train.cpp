// A transformer that learns to count: after token i comes token i + 1, modulo 16.
#include <cstdio>

#include "tilegrad/autograd/tape.h"
#include "tilegrad/nn/adamw.h"
#include "tilegrad/nn/generate.h"
#include "tilegrad/nn/transformer.h"

int main() {
  using namespace tilegrad;
  nn::Transformer model(
      {.vocabulary = 16, .context = 16, .layers = 1, .width = 32, .attention = {.heads = 4, .kv_heads = 2}},
      RandomKey{1});
  nn::AdamW optimizer(nn::parameters(model), {});
  std::vector<std::int32_t> count(17);
  for (std::int32_t i = 0; i < 17; ++i) count[i] = i % 16;
  const auto inputs = Tensor::from<std::int32_t>({1, 16}, std::span(count).first(16));
  const auto targets = Tensor::from<std::int32_t>({1, 16}, std::span(count).last(16));

  for (int step = 1; step <= 100; ++step) {
    Tape tape;
    const Var loss = model.loss(inputs, targets, {.training = true});
    tape.backward(loss);
    optimizer.step(1e-2);
    nn::zero_grad(nn::parameters(model));
    if (step % 25 == 0) std::printf("step %3d  loss %.4f\n", step, loss.value().item());
  }
  const std::int32_t prompt[] = {0, 1, 2};
  for (const std::int32_t token : nn::generate(model, prompt, 8, {})) std::printf("%d ", token);
  std::printf("\n");
}
