#pragma once

#include <ostream>
#include <string>

#include "tilegrad/autograd/shape.h"

namespace tilegrad::train {

/// One attention call in f64 whose gradients are computed in three ways and compared.
struct AttentionCheck {
  Index batch = 1, heads = 2, kv_heads = 2, tq = 7, tk = 7, head_size = 8;
  std::string mask = "random";  ///< random: each pair is visible with probability 1/2; causal; none
  std::uint64_t seed = 1;
};

/// Compares the gradients of naive attention, those of flash attention and central differences of the loss, for the
/// loss that is the sum of all outputs and for one with a random cotangent: a line for each of dq, dk and dv with the
/// largest differences. Of a large tensor, 200 elements are compared with central differences. Returns the number of
/// lines that failed.
Index check_attention(const AttentionCheck& check, std::ostream& out);

}  // namespace tilegrad::train
