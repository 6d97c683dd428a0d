#pragma once

#include "tilegrad/autograd/ops.h"

namespace tilegrad {

/// Throws Error, naming what is wrong and both values, if the operands of attention do not fit each other or
/// an option makes no sense. Private to autograd/ops/.
void check_attention(const Var& q, const Var& k, const Var& v, const AttentionOptions& options,
                     const AttentionExtras& extras);

}  // namespace tilegrad
