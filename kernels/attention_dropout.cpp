#include "kernels/attention_dropout.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_dropout.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

// Philox4x32-10 at 16 consecutive counters. The loops over l have no dependences, so the compiler turns each
// into a few vector instructions of the target.
struct Philox16 {
  static constexpr std::size_t kCounters = 16;
  std::uint32_t x[4][kCounters];

  HWY_ATTR void draw(std::uint64_t low, std::uint64_t high, std::uint64_t key) {
    for (std::size_t l = 0; l < kCounters; ++l) {
      x[0][l] = static_cast<std::uint32_t>(low + l);
      x[1][l] = static_cast<std::uint32_t>((low + l) >> 32);
      x[2][l] = static_cast<std::uint32_t>(high);
      x[3][l] = static_cast<std::uint32_t>(high >> 32);
    }
    auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
      for (std::size_t l = 0; l < kCounters; ++l) {
        const std::uint64_t a = std::uint64_t{0xD2511F53u} * x[0][l],
                            b = std::uint64_t{0xCD9E8D57u} * x[2][l];
        x[0][l] = static_cast<std::uint32_t>(b >> 32) ^ x[1][l] ^ k0;
        x[1][l] = static_cast<std::uint32_t>(b);
        x[2][l] = static_cast<std::uint32_t>(a >> 32) ^ x[3][l] ^ k1;
        x[3][l] = static_cast<std::uint32_t>(a);
      }
    }
  }
};

template <class T>
HWY_ATTR void factors(T* y, Index j0, Index n, Index row, double p, std::uint64_t key) {
  const auto threshold = static_cast<std::uint32_t>(p * 0x1.0p32);
  const T kept = static_cast<T>(1 / (1 - p));
  constexpr Index kStep = 4 * Philox16::kCounters;
  Philox16 random;
  for (Index j = j0 / 4 * 4; j < j0 + n; j += kStep) {
    random.draw(static_cast<std::uint64_t>(j / 4), static_cast<std::uint64_t>(row), key);
    T all[kStep];
    for (std::size_t l = 0; l < Philox16::kCounters; ++l) {
      for (std::size_t w = 0; w < 4; ++w) all[4 * l + w] = random.x[w][l] >= threshold ? kept : T{0};
    }
    const Index begin = std::max(j, j0), end = std::min(j + kStep, j0 + n);
    std::copy(all + (begin - j), all + (end - j), y + (begin - j0));
  }
}

void factors_f32(float* y, Index j0, Index n, Index row, double p, std::uint64_t key) {
  factors(y, j0, n, row, p, key);
}
void factors_f64(double* y, Index j0, Index n, Index row, double p, std::uint64_t key) {
  factors(y, j0, n, row, p, key);
}

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels {

HWY_EXPORT(factors_f32);
HWY_EXPORT(factors_f64);

template <>
void dropout_factors<float>(float* y, Index j0, Index n, Index row, double p, RandomKey key) {
  HWY_DYNAMIC_DISPATCH(factors_f32)(y, j0, n, row, p, key.value);
}
template <>
void dropout_factors<double>(double* y, Index j0, Index n, Index row, double p, RandomKey key) {
  HWY_DYNAMIC_DISPATCH(factors_f64)(y, j0, n, row, p, key.value);
}

}  // namespace tilegrad::kernels
#endif
