#include "tilegrad/train/measure/speed.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <vector>

#include "tilegrad/base/memory.h"
#include "tilegrad/kernels/parallel.h"

#ifndef TILEGRAD_MACHINE_SPEED_TABLE  // this file is compiled once for every SIMD target
#define TILEGRAD_MACHINE_SPEED_TABLE
namespace tilegrad {

// What each SIMD target provides: a run of multiply-adds, which returns its sums so that no compiler can
// optimise the work away, and how many operations that is.
template <class T>
struct FmaTable {
  T (*run)();
  double flops;
};

}  // namespace tilegrad
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/train/measure/speed.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tilegrad::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Sums that do not wait for each other: more of them than any processor has multiply-adds in flight and, with
// the two factors, no more than it has registers.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
constexpr int kSums = 20;
#else
constexpr int kSums = 12;
#endif
constexpr Index kRounds = 1000;

template <class T>
T run_fma() {
  const hn::ScalableTag<T> d;
  const auto factor = hn::Set(d, T(0.999)), term = hn::Set(d, T(0.001));
  hn::Vec<decltype(d)> sums[kSums];
  HWY_UNROLL(20)
  for (int i = 0; i < kSums; ++i) sums[i] = hn::Set(d, static_cast<T>(i));
  for (Index round = 0; round < kRounds; ++round) {
    HWY_UNROLL(20)
    for (int i = 0; i < kSums; ++i) sums[i] = hn::MulAdd(sums[i], factor, term);
  }
  HWY_UNROLL(20)
  for (int i = 1; i < kSums; ++i) sums[0] = hn::Add(sums[0], sums[i]);
  return hn::GetLane(hn::SumOfLanes(d, sums[0]));
}

// n is a multiple of 8 vectors.
float read(const float* x, Index n) {
  constexpr int kStreams = 8;
  const hn::ScalableTag<float> d;
  const auto width = static_cast<Index>(hn::Lanes(d));
  hn::Vec<decltype(d)> sums[kStreams];
  HWY_UNROLL(8)
  for (int i = 0; i < kStreams; ++i) sums[i] = hn::Zero(d);
  for (Index at = 0; at < n; at += kStreams * width) {
    HWY_UNROLL(8)
    for (int i = 0; i < kStreams; ++i) sums[i] = hn::Add(sums[i], hn::Load(d, x + at + i * width));
  }
  HWY_UNROLL(8)
  for (int i = 1; i < kStreams; ++i) sums[0] = hn::Add(sums[0], sums[i]);
  return hn::GetLane(hn::SumOfLanes(d, sums[0]));
}

template <class T>
FmaTable<T> fma() {
  return {.run = run_fma<T>,
          .flops = static_cast<double>(kRounds * kSums * 2) *
                   static_cast<double>(hn::Lanes(hn::ScalableTag<T>()))};
}
FmaTable<float> fma_f32() { return fma<float>(); }
FmaTable<double> fma_f64() { return fma<double>(); }

}  // namespace
}  // namespace tilegrad::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

HWY_EXPORT(fma_f32);
HWY_EXPORT(fma_f64);
HWY_EXPORT(read);

template <class T>
FmaTable<T> best_fma() {
  if constexpr (sizeof(T) == 4) {
    return HWY_DYNAMIC_DISPATCH(fma_f32)();
  } else {
    return HWY_DYNAMIC_DISPATCH(fma_f64)();
  }
}

// What the measured loops computed; volatile, so that it counts as used.
volatile double sink = 0;

// Floats that a thread reads at a time: a multiple of 8 of the longest vectors.
constexpr Index kPiece = Index{1} << 18;
constexpr Index kPieceBytes = kPiece * static_cast<Index>(sizeof(float));

// All threads stop at the same time, so that one that was late does not make the others wait.
template <class T>
double fma_gflops_once(double seconds) {
  struct Share {
    T sum = 0;
    double flops = 0;
  };
  const FmaTable<T> fma = best_fma<T>();
  std::vector<Share> shares(static_cast<std::size_t>(kernels::threads()));
  const auto start = Clock::now();
  kernels::parallel_tasks(std::ssize(shares), [&](Index task, int) {
    Share share;
    do {
      share.sum += fma.run();
      share.flops += fma.flops;
    } while (seconds_since(start) < seconds);
    shares[static_cast<std::size_t>(task)] = share;
  });
  const double elapsed = seconds_since(start);
  double flops = 0;
  for (const Share& share : shares) {
    flops += share.flops;
    sink = sink + static_cast<double>(share.sum);
  }
  return 1e-9 * flops / elapsed;
}

}  // namespace

template <class T>
double fma_gflops() {
  constexpr int kTimes = 5;
  constexpr double kSeconds = 0.001;  // short, so that one of the measurements is likely to be undisturbed
  double highest = 0;
  for (int i = 0; i < kTimes; ++i) highest = std::max(highest, fma_gflops_once<T>(kSeconds));
  return highest;
}
template double fma_gflops<float>();
template double fma_gflops<double>();

template <class T>
double highest_fma_gflops() {
  static std::map<int, double> highest;  // by number of threads
  double& peak = highest[kernels::threads()];
  peak = std::max(peak, fma_gflops<T>());
  return peak;
}
template double highest_fma_gflops<float>();
template double highest_fma_gflops<double>();

double read_bandwidth(std::span<const std::byte> memory) {
  constexpr int kTimes = 3;
  const auto* const data = reinterpret_cast<const float*>(memory.data());
  const Index pieces = std::ssize(memory) / kPieceBytes;
  std::vector<float> sums(static_cast<std::size_t>(pieces));
  double shortest = std::numeric_limits<double>::infinity();
  for (int time = 0; time < kTimes; ++time) {
    const auto start = Clock::now();
    kernels::parallel_tasks(pieces, [&](Index i, int) {
      sums[static_cast<std::size_t>(i)] = HWY_DYNAMIC_DISPATCH(read)(data + i * kPiece, kPiece);
    });
    shortest = std::min(shortest, seconds_since(start));
    for (const float sum : sums) sink = sink + static_cast<double>(sum);
  }
  return 1e-9 * static_cast<double>(pieces * kPieceBytes) / shortest;
}

double read_bandwidth(Index bytes) {
  const Index free = memory::limit() - memory::usage().live;
  const Index pieces = std::max<Index>(1, std::min(bytes, free / 2) / kPieceBytes);
  const memory::Block block(pieces * kPieceBytes, memory::Category::workspace);
  auto* const data = reinterpret_cast<float*>(block.data());
  // Written once, since memory that was never touched has no pages.
  kernels::parallel_tasks(pieces, [&](Index i, int) { std::fill_n(data + i * kPiece, kPiece, 1.0f); });
  return read_bandwidth({block.data(), static_cast<std::size_t>(pieces * kPieceBytes)});
}

}  // namespace tilegrad
#endif  // HWY_ONCE
