#include <benchmark/benchmark.h>

#include <cmath>

#include "autograd/ops.h"
#include "autograd/tape.h"

// Attention forward, and forward with backward, for both kernels. Before anything is timed, the two are
// compared.
namespace {

using namespace tilegrad;

struct Inputs {
  Var q, k, v;
  Tensor dout;

  Inputs(Index time, Index heads, Index head_size) {
    const Shape shape = {1, time, heads, head_size};
    const auto leaf = [&](std::uint64_t i) {
      return Var::leaf(Tensor::normal(shape, Dtype::f32, RandomKey{i}));
    };
    q = leaf(1);
    k = leaf(2);
    v = leaf(3);
    dout = Tensor::normal(shape, Dtype::f32, RandomKey{4});
  }
};

bool kernels_agree(const Inputs& in, const AttentionOptions& options) {
  const Tensor a = attention(in.q, in.k, in.v, AttentionKernel::naive, options).value();
  const Tensor b = attention(in.q, in.k, in.v, AttentionKernel::flash, options).value();
  for (Index i = 0; i < a.size(); ++i) {
    if (!(std::abs(a.at(i) - b.at(i)) <= 1e-5)) return false;
  }
  return true;
}

void run(benchmark::State& state, AttentionKernel kernel, bool backward) {
  const Index time = state.range(0), heads = state.range(1), head_size = state.range(2);
  const AttentionOptions options = {.causal = state.range(3) != 0};
  const Inputs in(time, heads, head_size);
  if (!kernels_agree(in, options)) {
    state.SkipWithError("naive and flash differ");
    return;
  }
  memory::reset_peak();
  for (auto _ : state) {
    if (!backward) {
      benchmark::DoNotOptimize(attention(in.q, in.k, in.v, kernel, options));
      continue;
    }
    Tape tape;
    tape.backward(attention(in.q, in.k, in.v, kernel, options), in.dout);
    for (const Var& leaf : {in.q, in.k, in.v}) leaf.cell()->grad = Tensor();
  }
  // Two products forward and five backward, half of each under a causal mask.
  const double products = (backward ? 7.0 : 2.0) * (options.causal ? 0.5 : 1.0);
  const double flops = products * 2 * static_cast<double>(heads * time * time * head_size);
  state.counters["GFLOP/s"] = benchmark::Counter(1e-9 * flops, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["peak_MiB"] = static_cast<double>(memory::usage().peak) / (1 << 20);
}

void naive_forward(benchmark::State& state) { run(state, AttentionKernel::naive, false); }
void flash_forward(benchmark::State& state) { run(state, AttentionKernel::flash, false); }
void naive_both(benchmark::State& state) { run(state, AttentionKernel::naive, true); }
void flash_both(benchmark::State& state) { run(state, AttentionKernel::flash, true); }

void sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "heads", "D", "causal"})->UseRealTime()->Unit(benchmark::kMillisecond);
  for (const Index causal : {0, 1}) {
    bench->Args({256, 16, 64, causal})->Args({1024, 8, 64, causal})->Args({4096, 2, 64, causal});
  }
}

BENCHMARK(naive_forward)->Apply(sizes);
BENCHMARK(flash_forward)->Apply(sizes);
BENCHMARK(naive_both)->Apply(sizes);
BENCHMARK(flash_both)->Apply(sizes);

}  // namespace
