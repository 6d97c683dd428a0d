#pragma once

#include <span>
#include <type_traits>

#include "tilegrad/kernels/attention/problem.h"

/// The passes of flash attention, each compiled once for a computing type, float or double, and for each SIMD
/// target. Private to kernels/.
namespace tilegrad::kernels {

/// A (B, T, H, D) tensor of attention that is computed in T. It is stored as T or, if T is float, as bf16 or f16:
/// which one is tested once per tile, never per element, so one kernel serves all.
template <class T>
struct StoredHeads {
  template <class S>
  using Like = std::conditional_t<std::is_const_v<T>, const S, S>;
  static constexpr bool kMayBeNarrow = std::is_same_v<std::remove_const_t<T>, float>;

  HeadsView<T> wide = {};  // one of the three
  HeadsView<Like<bf16>> brain = {};
  HeadsView<Like<f16>> half = {};

  StoredHeads() = default;
  StoredHeads(HeadsView<T> x) : wide(x) {}
  StoredHeads(HeadsView<Like<bf16>> x) requires(kMayBeNarrow) : brain(x) {}
  StoredHeads(HeadsView<Like<f16>> x) requires(kMayBeNarrow) : half(x) {}

  explicit operator bool() const { return wide.data != nullptr || is_narrow(); }
  bool is_narrow() const { return brain.data != nullptr || half.data != nullptr; }
};

/// Some rows of one head of such a tensor.
template <class T>
struct StoredRows {
  Mat<T> wide;  // one of the three
  Mat<typename StoredHeads<T>::template Like<bf16>> brain;
  Mat<typename StoredHeads<T>::template Like<f16>> half;
  bool is_narrow;

  StoredRows(const StoredHeads<T>& x, Index b, Index h, Range rows) : is_narrow(x.is_narrow()) {
    const auto block = [&](const auto& heads) { return heads.head(b, h).row_block(rows.begin, rows.size()); };
    if (x.brain.data != nullptr) {
      brain = block(x.brain);
    } else if (x.half.data != nullptr) {
      half = block(x.half);
    } else {
      wide = block(x.wide);
    }
  }

  Index rows() const { return wide.rows + brain.rows + half.rows; }
  Index cols() const { return wide.cols + brain.cols + half.cols; }
};

template <class T>
struct FlashInputs {
  StoredHeads<const T> q, k, v;
};
template <class T>
struct StoredGrad {
  StoredHeads<T> to;
  Write write;

  explicit operator bool() const { return static_cast<bool>(to); }
};
template <class T>
struct FlashGrads {
  StoredGrad<T> dq, dk, dv;
  Grad<ScoreView<T>> dbias;
  Grad<std::span<T>> dsinks;
};
/// What the forward pass left, and the gradients that arrive.
template <class T>
struct FlashOutputs {
  StoredHeads<const T> out, dout;
  std::span<const T> lse, dlse;
};

void flash_forward(const StoredHeads<float>& out, std::span<float> lse, const FlashInputs<float>& in,
                   const AttentionProblem<float>& problem);
void flash_forward(const StoredHeads<double>& out, std::span<double> lse, const FlashInputs<double>& in,
                   const AttentionProblem<double>& problem);

/// With which products both passes run on this machine, for the computing type of the argument: what tiles depend on.
MicroKernel flash_micro_kernel(float);
MicroKernel flash_micro_kernel(double);

/// flash_forward() for a problem that is_decode(): correct for any other, but not fast. Not for bf16 and f16:
/// few models keep their cache in them on a CPU, and flash_forward() is right for them as well.
void flash_decode(HeadsView<float> out, std::span<float> lse, const FlashInputs<float>& in,
                  const AttentionProblem<float>& problem);
void flash_decode(HeadsView<double> out, std::span<double> lse, const FlashInputs<double>& in,
                  const AttentionProblem<double>& problem);

void flash_backward(const FlashGrads<float>& grads, const FlashInputs<float>& in,
                    const FlashOutputs<float>& y, const AttentionProblem<float>& problem);
void flash_backward(const FlashGrads<double>& grads, const FlashInputs<double>& in,
                    const FlashOutputs<double>& y, const AttentionProblem<double>& problem);

}  // namespace tilegrad::kernels
