#include <benchmark/benchmark.h>

#include "kernels/gemm.h"
#include "kernels/parallel.h"

int main(int argc, char** argv) {
  benchmark::AddCustomContext("blas_core", tilegrad::kernels::blas_core());
  benchmark::AddCustomContext("threads", std::to_string(tilegrad::kernels::threads()));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
