#pragma once

#include <functional>

#include "tilegrad/data/batch.h"
#include "tilegrad/nn/transformer.h"

namespace tilegrad::train {

/// How well a model does on held-out data.
struct Evaluation {
  double loss = 0;      ///< mean over the positions that are asked for, in nats
  double accuracy = 0;  ///< share of them that the likeliest token gets right
  double exact = 0;     ///< share of the sequences that are right at all of them
  bool whole = false;   ///< all held-out data were seen
};

/// Nats per byte as bits per byte, for models of bytes.
double bits_of(double nats);

/// The tokens and the targets of a batch as tensors (B, T).
Tensor tokens_of(const data::Batch& batch);
Tensor targets_of(const data::Batch& batch);

/// Over the first examples of the held-out set, at most `examples` of them (rounded up to whole batches); 0: all.
/// Returns early, with what it has seen, as soon as `stop` says so.
Evaluation evaluate(const nn::Transformer& model, const data::Dataset& data, Index examples = 0,
                    const std::function<bool()>& stop = nullptr);

}  // namespace tilegrad::train
