#include <benchmark/benchmark.h>

#include "bench/attention_bench.h"
#include "bench/best.h"
#include "bench/program.h"
#include "bench/simd_limit.h"
#include "tilegrad/kernels/gemm.h"
#include "tilegrad/kernels/parallel.h"

int main(int argc, char** argv) {
  return tilegrad::bench::guarded([&] {
    tilegrad::bench::limit_simd();
    tilegrad::bench::add_attention_benchmarks();
    benchmark::AddCustomContext("blas_core", tilegrad::kernels::blas_core());
    benchmark::AddCustomContext("threads", std::to_string(tilegrad::kernels::threads()));
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    return tilegrad::bench::run_and_show_best();
  });
}
