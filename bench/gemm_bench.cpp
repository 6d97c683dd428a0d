#include <benchmark/benchmark.h>

#include "bench/best.h"
#include "tilegrad/autograd/tensor.h"
#include "tilegrad/kernels/gemm.h"
#include "tilegrad/kernels/parallel.h"

// Products as the layers of a transformer call them, by gemm() and by OpenBLAS on one thread, and a square one as the
// yardstick for everything else.
namespace {

using namespace tilegrad;
using kernels::Op;

// (rows, cols, inner), and which operand is transposed: forward is a bᵀ, dx is a b, dW is aᵀ b.
enum class Pass { forward, dx, dw };

template <class F>
void product(benchmark::State& state, Pass pass, F&& multiply) {
  const Index m = state.range(0), n = state.range(1), k = state.range(2);
  const Op op_a = pass == Pass::dw ? Op::transpose : Op::none;
  const Op op_b = pass == Pass::forward ? Op::transpose : Op::none;
  const auto shape = [](Index rows, Index cols, Op op) {
    return op == Op::none ? Shape{rows, cols} : Shape{cols, rows};
  };
  const Tensor a = Tensor::normal(shape(m, k, op_a), Dtype::f32, RandomKey{1});
  const Tensor b = Tensor::normal(shape(k, n, op_b), Dtype::f32, RandomKey{2});
  Tensor c = Tensor::empty({m, n}, Dtype::f32);
  for (auto _ : state) multiply(c.mut_mat<float>(), 1, a.mat<float>(), op_a, b.mat<float>(), op_b, 0);
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * static_cast<double>(m * n * k),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

void sizes(benchmark::internal::Benchmark* family, Pass pass) {
  family->ArgNames({"m", "n", "k"});
  if (pass == Pass::dw) {
    family->Args({128, 128, 768})->Args({512, 128, 768})->Args({384, 1536, 2048})->Args({3072, 768, 256});
  } else {
    family->Args({512, 48, 48})->Args({768, 128, 128})->Args({768, 512, 128})->Args({768, 128, 512});
    family->Args({2048, 1536, 384})
        ->Args({2048, 384, 1536})
        ->Args({256, 768, 3072})
        ->Args({1024, 1024, 1024});
  }
  bench::report_best(family);
}

void forward(benchmark::internal::Benchmark* family) { sizes(family, Pass::forward); }
void dx(benchmark::internal::Benchmark* family) { sizes(family, Pass::dx); }
void dw(benchmark::internal::Benchmark* family) { sizes(family, Pass::dw); }

void gemm(benchmark::State& state, Pass pass, int threads) {
  const kernels::ThreadScope scope(threads);
  product(state, pass, kernels::gemm<float>);
}
void openblas(benchmark::State& state, Pass pass) { product(state, pass, kernels::gemm_serial<float>); }

BENCHMARK_CAPTURE(gemm, forward, Pass::forward, 1)->Apply(forward);
BENCHMARK_CAPTURE(openblas, forward, Pass::forward)->Apply(forward);
BENCHMARK_CAPTURE(gemm, forward_2_threads, Pass::forward, 2)->Apply(forward);
BENCHMARK_CAPTURE(gemm, dx, Pass::dx, 1)->Apply(dx);
BENCHMARK_CAPTURE(openblas, dx, Pass::dx)->Apply(dx);
BENCHMARK_CAPTURE(gemm, dw, Pass::dw, 1)->Apply(dw);
BENCHMARK_CAPTURE(openblas, dw, Pass::dw)->Apply(dw);
BENCHMARK_CAPTURE(gemm, dw_2_threads, Pass::dw, 2)->Apply(dw);

}  // namespace
