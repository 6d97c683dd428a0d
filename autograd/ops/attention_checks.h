#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "tilegrad/autograd/dtype.h"
#include "tilegrad/autograd/shape.h"
#include "tilegrad/kernels/attention/attention.h"

/// The checks of attention's arguments, for whoever calls its kernels: the op, on tensors, and the Python module, on
/// arrays that belong to others. Both report the same mistake in the same words.
namespace tilegrad {

/// What attention reads. The first kTracked may be on a gradient path; all but q, k and v may be left out.
enum AttentionOperand {
  kQ,
  kK,
  kV,
  kBias,
  kSinks,
  kTracked,
  kMask = kTracked,
  kAlibi,
  kKLengths,
  kCuQ,
  kCuK,
  kOperands
};
inline constexpr std::array<std::string_view, kOperands> kOperandNames = {
    "q", "k", "v", "bias", "sinks", "mask", "alibi", "k_lengths", "cu_q", "cu_k"};

/// An operand as the checks see it. `integers` are the elements if it is an i32 vector.
struct OperandInfo {
  bool given = false;
  Shape shape = {};
  Dtype dtype = Dtype::f32;
  std::span<const std::int32_t> integers = {};
};

/// Throws Error unless sizes, dtypes and options fit together. kernels/attention/attention.h has the rules.
void check_attention(const std::array<OperandInfo, kOperands>& operands,
                     const kernels::AttentionOptions& options);
/// Naive attention multiplies with a BLAS, whose sizes and strides end at 2³¹ − 1; throws Error beyond.
void check_blas_sizes(const std::array<OperandInfo, kOperands>& operands);

}  // namespace tilegrad
