#pragma once

#include <array>
#include <string_view>

#include "tilegrad/autograd/ops.h"

/// The operands of the attention op, and its checks. Private to autograd/ops/.
namespace tilegrad::attention_op {

/// What attention reads. The first kTracked may be on a gradient path; all but q, k and v may be undefined.
enum Operand {
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
inline constexpr std::array<std::string_view, kOperands> kNames = {
    "q", "k", "v", "bias", "sinks", "mask", "alibi", "k_lengths", "cu_q", "cu_k"};
using Inputs = std::array<Var, kOperands>;

/// Throws an Error that names the operand or the option, if they do not fit each other or the computing type.
void check_inputs(const Inputs& in, const AttentionOptions& options);
/// Naive attention multiplies by a BLAS, whose sizes and strides end at 2³¹ − 1; throws an Error beyond.
void check_blas_sizes(const Inputs& in);

}  // namespace tilegrad::attention_op
