#include "tilegrad/kernels/dropout.h"

#include <algorithm>
#include <cstring>

#include "tilegrad/kernels/parallel.h"

#ifndef TILEGRAD_KERNELS_DROPOUT_TABLE  // this file is compiled once for every SIMD target
#define TILEGRAD_KERNELS_DROPOUT_TABLE
namespace tilegrad::kernels {

// What each SIMD target provides: elements [j0, j0 + n) of one row.
template <class T>
struct DropoutTable {
  void (*factors)(T* y, Index j0, Index n, Index row, double p, std::uint64_t key);
  void (*apply)(T* y, Write write, const T* x, Index j0, Index n, Index row, double p, std::uint64_t key);
};

}  // namespace tilegrad::kernels
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/dropout.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

using Tag64 = hn::ScalableTag<std::uint64_t>;
using Vec64 = hn::Vec<Tag64>;

// Philox4x32: the multipliers, and what is added to the key after each round.
constexpr std::uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
constexpr std::uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
constexpr Index kMaxCounters = HWY_MAX_BYTES / sizeof(std::uint64_t);  // in a vector

// The low 32 bits of each lane times m, in 64 bits.
HWY_INLINE Vec64 multiply(Vec64 x, std::uint32_t m) {
#if HWY_TARGET == HWY_SCALAR  // has no lanes of half the width
  return hn::Set(Tag64(), (hn::GetLane(x) & 0xFFFFFFFFu) * m);
#else
  const hn::Repartition<std::uint32_t, Tag64> d32;
  return hn::MulEven(hn::BitCast(d32, x), hn::Set(d32, m));
#endif
}

// The words of Philox4x32-10 at as many consecutive counters as a vector has lanes, in the order of
// RandomKey::words(). A lane of 64 bits holds a word in its low half, and in its high half what is left of a
// product, which the next product ignores.
HWY_INLINE void draw(std::uint32_t* words, std::uint64_t low, std::uint64_t high, std::uint64_t key) {
  const Tag64 d;
  auto x0 = hn::Add(hn::Iota(d, 0), hn::Set(d, low)), x1 = hn::ShiftRight<32>(x0);
  auto x2 = hn::Set(d, high), x3 = hn::Set(d, high >> 32);
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round, k0 += kWeyl0, k1 += kWeyl1) {
    const auto a = multiply(x0, kMultiplier0), b = multiply(x2, kMultiplier1);
    x0 = hn::Xor3(hn::ShiftRight<32>(b), x1, hn::Set(d, std::uint64_t{k0}));
    x1 = b;
    x2 = hn::Xor3(hn::ShiftRight<32>(a), x3, hn::Set(d, std::uint64_t{k1}));
    x3 = a;
  }
  const auto word = hn::Set(d, std::uint64_t{0xFFFFFFFFu});
  HWY_ALIGN std::uint64_t pairs[2 * kMaxCounters];
  hn::StoreInterleaved2(hn::Or(hn::And(x0, word), hn::ShiftLeft<32>(x1)),
                        hn::Or(hn::And(x2, word), hn::ShiftLeft<32>(x3)), d, pairs);
  std::memcpy(words, pairs, 2 * hn::Lanes(d) * sizeof(std::uint64_t));
}

template <class T>
HWY_ATTR void factors(T* y, Index j0, Index n, Index row, double p, std::uint64_t key) {
  const auto threshold = static_cast<std::uint32_t>(p * 0x1.0p32);
  const T kept = static_cast<T>(1 / (1 - p));
  const auto step = static_cast<Index>(4 * hn::Lanes(Tag64()));
  std::uint32_t words[4 * kMaxCounters];
  for (Index j = j0 / 4 * 4; j < j0 + n; j += step) {
    draw(words, static_cast<std::uint64_t>(j / 4), static_cast<std::uint64_t>(row), key);
    const Index begin = std::max(j, j0), end = std::min(j + step, j0 + n);
    for (Index i = begin; i < end; ++i) y[i - j0] = words[i - j] >= threshold ? kept : T{0};
  }
}

template <class T>
void apply(T* y, Write write, const T* x, Index j0, Index n, Index row, double p, std::uint64_t key) {
  constexpr Index kRun = 512;  // factors, which stay in the cache
  T m[kRun];
  for (Index j = 0; j < n; j += kRun) {
    const Index count = std::min(kRun, n - j);
    factors(m, j0 + j, count, row, p, key);
    map_into(
        y + j, write, count,
        [](auto factor, auto v) {
          return hn::IfThenZeroElse(hn::Eq(factor, hn::Zero(Tag<T>())), hn::Mul(factor, v));
        },
        m, x + j);
  }
}

template <class T>
constexpr DropoutTable<T> kTable = {.factors = factors<T>, .apply = apply<T>};
TILEGRAD_TARGET_TABLE(DropoutTable)

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels {

namespace {

TILEGRAD_BEST_TABLE(DropoutTable)

// y (+)= factors ⊙ x
template <class T>
void apply(std::span<T> y, Write write, std::span<const T> x, double p, RandomKey key) {
  constexpr Index kGrain = 16384;
  parallel_for(std::ssize(y), kGrain, [&](Index begin, Index end) {
    best<T>().apply(y.data() + begin, write, x.data() + begin, begin, end - begin, 0, p, key.value);
  });
}

}  // namespace

template <class T>
void dropout_factors(T* factors, Index j0, Index n, Index row, double p, RandomKey key) {
  best<T>().factors(factors, j0, n, row, p, key.value);
}

template <class T>
void dropout(std::span<T> y, std::span<const T> x, double p, RandomKey key) {
  apply<T>(y, Write::overwrite, x, p, key);
}

template <class T>
void dropout_backward(Grad<std::span<T>> dx, std::span<const T> dy, double p, RandomKey key) {
  // forward: y = factors ⊙ x
  apply<T>(dx.to, dx.write, dy, p, key);
}

#define TILEGRAD_INSTANTIATE(T)                                                  \
  template void dropout_factors<T>(T*, Index, Index, Index, double, RandomKey);  \
  template void dropout<T>(std::span<T>, std::span<const T>, double, RandomKey); \
  template void dropout_backward<T>(Grad<std::span<T>>, std::span<const T>, double, RandomKey);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels
#endif  // HWY_ONCE
