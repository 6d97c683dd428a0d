#pragma once

namespace tilegrad::bench {

/// If the environment variable TILEGRAD_BENCH_SIMD is AVX2, as `./dev bench --avx2` sets it, the kernels of this process
/// and the peak are those of a processor without AVX-512. Call it before any of them. Throws Error for another value.
void limit_simd();

}  // namespace tilegrad::bench
