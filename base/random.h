#pragma once

#include <Random123/philox.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace tilegrad {

/// Random numbers without state. A key and a counter name a random number, so whoever holds the key can draw
/// the same number again, in any order and on any thread: dropout replays its mask in the backward pass and
/// in a checkpoint's recomputation, and a resumed run continues as if it had never stopped.
///
/// The generator is Philox4x32-10: J. K. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC
/// 2011).
struct RandomKey {
  std::uint64_t value = 0;

  /// The four 32-bit words at one counter.
  std::array<std::uint32_t, 4> words(std::uint64_t low, std::uint64_t high = 0) const {
    const r123::Philox4x32::key_type key = {
        {static_cast<std::uint32_t>(value), static_cast<std::uint32_t>(value >> 32)}};
    const r123::Philox4x32::ctr_type counter = {
        {static_cast<std::uint32_t>(low), static_cast<std::uint32_t>(low >> 32),
         static_cast<std::uint32_t>(high), static_cast<std::uint32_t>(high >> 32)}};
    const auto out = r123::Philox4x32{}(counter, key);
    return {out[0], out[1], out[2], out[3]};
  }

  /// An independent key for a named part of the work (a step, a layer, a tensor):
  /// seed.fold(step).fold(layer).
  RandomKey fold(std::uint64_t part) const {
    constexpr std::uint64_t kFoldDomain = 0x666f6c64;  // keeps derived keys apart from the numbers drawn
    const auto w = words(part, kFoldDomain);
    return {(std::uint64_t{w[1]} << 32) | w[0]};
  }

  friend bool operator==(const RandomKey&, const RandomKey&) = default;
};

/// A sequence of draws from one key, for code that simply wants "the next number". Its whole state is
/// (key, position), so it can be saved and restored.
class RandomStream {
 public:
  explicit RandomStream(RandomKey key, std::uint64_t position = 0) : key_(key), position_(position) {}

  std::uint64_t position() const { return position_; }

  /// 64 random bits.
  std::uint64_t bits() {
    const auto w = key_.words(position_++);
    return (std::uint64_t{w[1]} << 32) | w[0];
  }

  /// Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1.0p-53; }

  /// Uniform integer in [0, n), n > 0. Rejects the tail, so no value is favoured.
  std::uint64_t below(std::uint64_t n) {
    const std::uint64_t tail = (0 - n) % n;  // 2^64 mod n
    std::uint64_t x = bits();
    while (x < tail) x = bits();
    return x % n;
  }

  /// Standard normal, by Box and Muller.
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

 private:
  RandomKey key_;
  std::uint64_t position_;
};

}  // namespace tilegrad
