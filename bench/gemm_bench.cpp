#include <benchmark/benchmark.h>

#include "bench/best.h"
#include "tilegrad/autograd/tensor.h"
#include "tilegrad/kernels/gemm.h"

// Square products, as the yardstick for everything else, and the products of a small transformer's layers.
namespace {

using namespace tilegrad;

void gemm(benchmark::State& state) {
  const Index m = state.range(0), n = state.range(1), k = state.range(2);
  const Tensor a = Tensor::normal({m, k}, Dtype::f32, RandomKey{1});
  const Tensor b = Tensor::normal({n, k}, Dtype::f32, RandomKey{2});
  Tensor c = Tensor::empty({m, n}, Dtype::f32);
  for (auto _ : state) {
    kernels::gemm<float>(c.mut_mat<float>(), 1, a.mat<float>(), kernels::Op::none, b.mat<float>(),
                         kernels::Op::transpose, 0);
  }
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * static_cast<double>(m * n * k),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK(gemm)
    ->ArgNames({"m", "n", "k"})
    ->Args({1024, 1024, 1024})
    ->Args({768, 128, 128})
    ->Args({768, 512, 128})
    ->Args({768, 128, 512})
    ->Args({128, 512, 768})
    ->Apply(bench::report_best);

}  // namespace
