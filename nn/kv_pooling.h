#pragma once

#include "tilegrad/nn/transformer.h"

namespace tilegrad::nn {

/// Copies the weights of `from` into `to`, a model that differs only in having fewer key/value heads: each
/// key and value head of `to` becomes the mean of the heads that it replaces (Ainslie et al., "GQA", 2023).
/// Throws if the models differ in anything else.
void pool_kv_heads(Transformer& to, Transformer& from);

}  // namespace tilegrad::nn
