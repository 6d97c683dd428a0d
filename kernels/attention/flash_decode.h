#pragma once

#include "tilegrad/kernels/attention/problem.h"

namespace tilegrad::kernels {

/// Flash attention for a problem that decodes(): any problem would do, but would not be fast.
void flash_decode(HeadsView<float> out, std::span<float> lse, const AttentionProblem<float>& problem);
void flash_decode(HeadsView<double> out, std::span<double> lse, const AttentionProblem<double>& problem);

}  // namespace tilegrad::kernels
