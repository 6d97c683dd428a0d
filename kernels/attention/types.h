#pragma once

#include "tilegrad/kernels/narrow.h"

/// The types that attention's tensors may be stored in: F(float) F(double) F(bf16) F(f16), for explicit
/// instantiations.
#define TILEGRAD_FOR_ATTENTION_TYPES(F) F(float) F(double) F(bf16) F(f16)
