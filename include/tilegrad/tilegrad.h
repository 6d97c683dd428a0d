#pragma once

/// The whole library: tensors, the tape and its ops, checkpointing, layers, optimisers, and toy tasks.
#include "tilegrad/autograd/checkpoint.h"       // IWYU pragma: export
#include "tilegrad/autograd/checkpoint_plan.h"  // IWYU pragma: export
#include "tilegrad/autograd/gradcheck.h"        // IWYU pragma: export
#include "tilegrad/autograd/op_listener.h"      // IWYU pragma: export
#include "tilegrad/autograd/operators.h"        // IWYU pragma: export
#include "tilegrad/autograd/ops.h"              // IWYU pragma: export
#include "tilegrad/autograd/print.h"            // IWYU pragma: export
#include "tilegrad/autograd/saved.h"            // IWYU pragma: export
#include "tilegrad/autograd/tape.h"             // IWYU pragma: export
#include "tilegrad/data/task.h"                 // IWYU pragma: export
#include "tilegrad/data/text.h"                 // IWYU pragma: export
#include "tilegrad/nn/adamw.h"                  // IWYU pragma: export
#include "tilegrad/nn/generate.h"               // IWYU pragma: export
#include "tilegrad/nn/kv_pooling.h"             // IWYU pragma: export
#include "tilegrad/nn/optimizer.h"              // IWYU pragma: export
#include "tilegrad/nn/sgd.h"                    // IWYU pragma: export
#include "tilegrad/nn/transformer.h"            // IWYU pragma: export
#include "tilegrad/nn/weights.h"                // IWYU pragma: export
