#pragma once

/// Attention, naive and flash, with every option and its gradients, as ops on tensors: attention() and what it
/// takes. A Tape records them and goes back.
#include "tilegrad/autograd/operators.h"  // IWYU pragma: export
#include "tilegrad/autograd/ops.h"        // IWYU pragma: export
#include "tilegrad/autograd/print.h"      // IWYU pragma: export
#include "tilegrad/autograd/tape.h"       // IWYU pragma: export
