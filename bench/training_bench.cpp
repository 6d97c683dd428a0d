#include <benchmark/benchmark.h>

#include "bench/best.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/nn/adamw.h"
#include "tilegrad/nn/transformer.h"

// One training step: forward, loss, backward, clipping and AdamW, on random tokens.
namespace {

using namespace tilegrad;

Tensor random_tokens(Index batch, Index time, Index vocabulary) {
  Tensor ids = Tensor::empty({batch, time}, Dtype::i32);
  RandomStream random(RandomKey{3});
  for (auto& id : ids.mut<std::int32_t>()) {
    id = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocabulary)));
  }
  return ids;
}

void step(benchmark::State& state, Index layers, Index heads, Index width, Index context, Index batch) {
  const nn::TransformerConfig config = {.vocabulary = 65,
                                        .context = context,
                                        .layers = layers,
                                        .width = width,
                                        .attention = {.heads = heads, .kv_heads = heads}};
  nn::Transformer model(config, RandomKey{1});
  const auto parameters = nn::parameters(model);
  nn::AdamW optimizer(parameters, {});
  const Tensor tokens = random_tokens(batch, context, config.vocabulary);
  const Tensor targets = random_tokens(batch, context, config.vocabulary);
  for (auto _ : state) {
    Tape tape;
    tape.backward(model.loss(tokens, targets, {.training = true}));
    optimizer.step(1e-4);
    nn::zero_grad(parameters);
  }
  // Six operations for each parameter and token, and the attention's products.
  const double attention = 6.0 * static_cast<double>(layers * batch * context * context * width);
  const double flops = 6.0 * static_cast<double>(nn::count(parameters) * batch * context) + attention;
  state.counters["GFLOP/s"] = benchmark::Counter(1e-9 * flops, benchmark::Counter::kIsIterationInvariantRate);
}

void toy_step(benchmark::State& state) { step(state, 2, 3, 48, 16, 32); }
void char_step(benchmark::State& state) { step(state, 4, 4, 128, 64, 12); }
void small_step(benchmark::State& state) { step(state, 6, 6, 384, 256, 8); }

BENCHMARK(toy_step)->Apply(bench::report_best)->Unit(benchmark::kMillisecond);
BENCHMARK(char_step)->Apply(bench::report_best)->Unit(benchmark::kMillisecond);
BENCHMARK(small_step)->Apply(bench::report_best)->Unit(benchmark::kMillisecond);

}  // namespace
