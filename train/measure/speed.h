#pragma once

#include <cstddef>
#include <span>

#include "tilegrad/base/index.h"

/// What this machine can do at best, to compare measured times with. Speeds are those of kernels::threads()
/// threads, the best of a few short measurements: other programs can only lower them, so measure in between
/// the times that you compare, and take the best again.
namespace tilegrad {

/// Fused multiply-adds, two operations each, in GFLOP/s: on every thread a loop in registers, in the widest
/// vectors that the processor has. T is float or double. Takes about 5 ms.
template <class T>
double fma_gflops();

/// The highest fma_gflops<T>() of this process so far, on as many threads; measures it once more. Call it
/// throughout a run: another program may slow down one measurement, but hardly all of them.
template <class T>
double highest_fma_gflops();

/// GB/s that the threads read together from this memory, at least 1 MiB that is aligned to 64 bytes; what is
/// beyond the last whole MiB is left out. Memory that fits into a cache is read from there.
double read_bandwidth(std::span<const std::byte> memory);

/// The same for `bytes` of fresh memory, which should be many times the last cache; for half of what the
/// memory limit leaves if that is less.
double read_bandwidth(Index bytes = Index{256} << 20);

}  // namespace tilegrad
