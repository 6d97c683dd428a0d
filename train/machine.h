#pragma once

#include <string>

#include "base/index.h"

/// What this machine can do at best, to hold measured times against. Speeds are those of
/// kernels::threads() threads, the best of a few short measurements: neighbours only take from them, so
/// measure between the times that you compare with, and take the best again.
namespace tilegrad::train {

/// Fused multiply-adds, two operations each, in GFLOP/s: on every thread a loop in registers, in the widest
/// vectors that the processor has. T is float or double. Takes about 5 ms.
template <class T>
double fma_gflops();

/// GB/s that the threads read together from `bytes` of memory, which should be many times the last cache;
/// from half of what the memory limit leaves if that is less.
double read_bandwidth(Index bytes = Index{256} << 20);

/// Bytes of one core's L2 cache; 1 MiB if the system does not tell.
Index l2_bytes();

/// "AMD EPYC 9654"; "unknown processor" if the system does not tell.
std::string processor_name();

}  // namespace tilegrad::train
